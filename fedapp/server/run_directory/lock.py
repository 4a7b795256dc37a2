"""One writer for each run directory: a run that seems dead may still be writing."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedapp.common.errors import FederationError

__all__ = ["LOCK", "only_writer"]

LOCK = ".lock"


@contextmanager
def only_writer(directory: Path) -> Iterator[None]:
    """Hold `directory` for this process; the system lets go of it however the process ends.

    Raises FederationError where another process holds it.
    """
    with (directory / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise FederationError(
                f"run.output_dir={directory}: another process ({file.read().strip()}) is writing this run; wait for its"
                " end, or end it, before going on"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()}\n")
        file.flush()
        yield
