"""Unix sockets whose path is longer than systems allow, which is some hundred bytes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["LONGEST", "can_be_long", "short_path"]

LONGEST = 100  # bytes of a path that every system takes
DESCRIPTORS = Path("/proc/self/fd")  # Linux: folders by the number under which this process has them open


def can_be_long() -> bool:
    return DESCRIPTORS.is_dir()


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A name for `path` to bind to or to connect to. Raises OSError where its folder is not there."""
    if len(os.fsencode(path)) <= LONGEST or not can_be_long():
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield str(DESCRIPTORS / str(folder) / path.name)
    finally:
        os.close(folder)
