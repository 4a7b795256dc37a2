"""One writer for each run directory: a run that seems dead may still be writing."""

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedapp.common.errors import FederationError

__all__ = ["LOCK", "is_held", "only_writer"]

LOCK = ".lock"


def is_held(directory: Path) -> bool:
    """Whether a process is writing a run into `directory`."""
    try:
        with (directory / LOCK).open(encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is no such file
        return False
    return False


def _holder(directory: Path) -> str:
    """Who holds it, as it says itself; it may have begun to just now."""
    return (directory / LOCK).read_text(encoding="utf-8").strip() or "which has just begun"


@contextmanager
def only_writer(directory: Path) -> Iterator[None]:
    """Hold `directory` for this process; the system lets go of it however the process ends.

    Raises FederationError where another process holds it.
    """
    with (directory / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FederationError(
                f"run.output_dir={directory}: another process ({_holder(directory)}) is writing this run; wait for its"
                " end or end it, or give this run a directory of its own"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield
