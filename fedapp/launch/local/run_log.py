"""The log of a run that happens in this program: it goes to a file, and not to the terminal, which shows the rounds."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

__all__ = ["log_in_worker", "log_to"]

LOGGER = logging.getLogger("flwr")
FORMAT = "%(levelname)s : %(asctime)s  %(message)s"


def log_in_worker() -> None:
    """Have Flower's log of this process look like the server's, on standard error."""
    _log_only_to(sys.stderr)


def _log_only_to(stream: TextIO) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter(FORMAT))
    LOGGER.handlers[:], LOGGER.propagate = [handler], False


@contextmanager
def log_to(file: Path) -> Iterator[int]:
    """Have Flower's log and all warnings of this process end in `file`, which workers get the descriptor of."""
    stream = file.open("a", encoding="utf-8", errors="backslashreplace")
    before, show, propagate = LOGGER.handlers[:], warnings.showwarning, LOGGER.propagate

    def warn(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any) -> None:
        LOGGER.warning("%s", warnings.formatwarning(message, category, filename, lineno).strip())

    _log_only_to(stream)
    warnings.showwarning = warn
    try:
        yield stream.fileno()
    finally:
        warnings.showwarning = show
        LOGGER.handlers[:], LOGGER.propagate = before, propagate
        stream.close()
