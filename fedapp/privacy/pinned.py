"""Fix at first use how a device's data is read. A server that could choose other columns, classes or filters for every
run would learn about single rows from which choices fit."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedapp.common.errors import ConfigError
from fedapp.common.files import write_atomically

__all__ = ["pin"]

log = logging.getLogger("flwr")


def pin(path: Path, settings: Mapping[str, Any]) -> None:
    """Write `settings` to `path` if the file does not exist. Raises ConfigError if it allows only others; the operator
    can add a line for each that is allowed. A folder that is not there is not made: it may be lost (OSError)."""
    line = json.dumps(settings, sort_keys=True)
    try:
        allowed = path.read_text().splitlines()
    except FileNotFoundError:
        write_atomically(path, f"{line}\n".encode(), mode=0o600)
        return
    if line not in allowed:
        log.warning("to allow these settings of data, add this line to %s: %s", path, line)
        raise ConfigError(
            "data: these settings are not those by which this device's data was first read, and each other reading"
            " would tell more of it. Its operator can allow them (see the client's log)"
        )
