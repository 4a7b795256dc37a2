"""Where a run's files lie, as server and clients of a simulation both know it."""

from pathlib import Path

from fedapp.common.errors import ConfigError

__all__ = ["KEPT", "run_directory"]

KEPT = 2  # checkpoints: should the newest be damaged, there is the one before it


def run_directory(resume: str | None) -> Path | None:
    """The run directory that `run.resume` names, if it names one: a run directory, or a checkpoint in it."""
    if resume is None or resume == "auto":
        return None
    path = Path(resume).expanduser()
    if not path.is_absolute():
        raise ConfigError(
            f"run.resume={resume}: must be null, auto or an absolute path, since the server starts elsewhere"
        )
    return path.parent.parent if path.suffix == ".safetensors" else path
