"""The file that an audit leaves."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["write_result"]


def write_result(directory: Path, content: Mapping[str, Any]) -> None:
    """audit.json, in a directory that is made."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "audit.json").write_text(json.dumps(content, indent=2) + "\n")
