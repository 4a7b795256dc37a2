"""Whether a directory can be a run's own."""

from pathlib import Path

from fedapp.common.errors import ConfigError
from fedapp.server.run_directory.checkpoint import checkpoint_files

__all__ = ["claim"]


def claim(directory: Path, *, resume: bool = False) -> None:
    """Make `directory` a run's own. Raises ConfigError if it cannot be written, or holds a run that is not resumed."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
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
