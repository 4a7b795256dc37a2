"""The log of a run that happens in this program: it goes to a file, and not to the terminal, which shows the rounds."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["log_in_worker", "log_to"]

FORMAT = "%(levelname)s : %(asctime)s  %(message)s"


def log_in_worker() -> None:
    """Have Flower's log of this process look like the server's, on standard error."""
    logger = logging.getLogger("flwr")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(FORMAT))
    logger.handlers[:], logger.propagate = [handler], False


@contextmanager
def log_to(file: Path) -> Iterator[int]:
    """Have Flower's log and all warnings of this process end in `file`, which workers get the descriptor of."""
    stream = file.open("a", encoding="utf-8", errors="backslashreplace")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter(FORMAT))
    logger = logging.getLogger("flwr")
    before, show, propagate = logger.handlers[:], warnings.showwarning, logger.propagate

    def warn(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any) -> None:
        logger.warning("%s", warnings.formatwarning(message, category, filename, lineno).strip())

    logger.handlers[:], logger.propagate = [handler], False
    warnings.showwarning = warn
    try:
        yield stream.fileno()
    finally:
        warnings.showwarning = show
        logger.handlers[:], logger.propagate = before, propagate
        stream.close()
