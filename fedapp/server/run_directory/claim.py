"""Whether a directory can be a run's own."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedapp.common.errors import ConfigError, FederationError
from fedapp.server.run_directory.checkpoint import checkpoint_files
from fedapp.server.run_directory.lock import is_held, only_writer

__all__ = ["claim", "writing"]

NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
NOT_ALLOWED = {errno.EROFS, errno.EACCES, errno.EPERM}


def claim(directory: Path, *, resume: bool = False, held: bool = False) -> None:
    """Make `directory` a run's own. Raises ConfigError if it cannot be written, or holds a run that is not resumed, and
    FederationError where another process writes one there. `held`: this process holds it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not held and is_held(directory):
            with only_writer(directory):  # says who
                pass
        if not resume and ((directory / "metrics.jsonl").exists() or checkpoint_files(directory / "checkpoint")):
            raise ConfigError(
                f"run.output_dir={directory}: already holds a run; choose another directory, or go on with it by"
                " run.resume=auto"
            )
        probe = directory / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        why = "it is a file" if directory.is_file() else error.strerror
        raise ConfigError(
            f"run.output_dir={directory}: cannot be written ({why}); choose a directory of your own"
        ) from None


@contextmanager
def writing(directory: Path) -> Iterator[None]:
    """A full disk, or a directory that can no longer be written, ends a run with a message and not with a traceback."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM | NOT_ALLOWED:
            raise
        remedy = "make room" if error.errno in NO_ROOM else "let this user write there"
        where = error.filename or directory
        raise FederationError(
            f"{where}: cannot be written ({error.strerror}); {remedy}, then go on from the last checkpoint"
        ) from error
