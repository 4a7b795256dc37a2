"""conf/ with files of one's own in it, for runs in this process."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fedapp.client import handlers
from fedapp.config.committed import committed_targets
from fedapp.config.options import options_of
from fedapp.config.overrides import groups
from fedapp.learning.metrics.by_name import _named

CACHED: tuple[Any, ...] = (groups, committed_targets, options_of, _named, handlers._run)


@contextmanager
def conf_of_own(monkeypatch: pytest.MonkeyPatch, conf: Path) -> Iterator[None]:
    """All of fedapp.config reads `conf`, wherever it holds the folder's name, and nothing that was read before."""
    for name, module in [*sys.modules.items()]:
        if name.startswith("fedapp.config.") and hasattr(module, "CONF_DIR"):
            monkeypatch.setattr(module, "CONF_DIR", conf)
    for function in CACHED:
        function.cache_clear()
    yield
    for function in CACHED:
        function.cache_clear()
