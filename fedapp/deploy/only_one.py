"""One process for each identity: two SuperNodes with one key would take each other's messages."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedapp.common.errors import ConfigError

__all__ = ["is_running", "only_one"]


@contextmanager
def only_one(state: Path, what: str) -> Iterator[None]:
    """Hold `state` for this process; the system lets go of it however the process ends. Raises ConfigError."""
    with (state / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"--folder {state.parent}: a {what} is running from it already; end that one first"
            ) from None
        yield


def is_running(state: Path) -> bool:
    """Whether a process of this machine holds `state`."""
    try:
        with (state / ".lock").open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False
