"""Look up names of Flower's internals, and log a warning, once a process, where one is gone."""

import logging
from functools import cache
from importlib import import_module
from importlib.metadata import version
from typing import Any

__all__ = ["find", "warn_once"]

log = logging.getLogger("flwr")


def find(module: str, name: str, *, otherwise: str) -> Any | None:
    """`name` of `module`; None, with a warning that says what happens `otherwise`, where Flower has no such name."""
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError):
        warn_once(f"{module}.{name}", otherwise)
        return None


@cache
def warn_once(what: str, otherwise: str) -> None:
    """Log that this version of Flower lacks `what`, and what happens `otherwise`. A second call logs nothing."""
    log.warning("flwr %s has no %s as fedapp expects it: %s", version("flwr"), what, otherwise)
