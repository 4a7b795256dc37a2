"""`scripts/run.py --resume RUN_DIR`: the overrides that a run was started with, read from its newest checkpoint."""

from collections.abc import Sequence
from pathlib import Path

from fedapp.common.errors import ConfigError, FederationError
from fedapp.common.override_text import quoted

__all__ = ["resumed_arguments"]

OPTION = "--resume"
OF_A_RUN = ("run.output_dir", "run.resume")  # where it lies, which is known


def resumed_arguments(arguments: Sequence[str]) -> list[str]:
    """`arguments` with `--resume RUN_DIR` (or `--resume=RUN_DIR`, or a checkpoint in it) replaced by that run's own
    overrides; others that are given win over those of the same key. Raises ConfigError where there is no such run."""
    found, place = list(arguments), None
    for index, argument in enumerate(found):
        if argument == OPTION or argument.startswith(f"{OPTION}="):
            name, equals, value = argument.partition("=")
            if not equals and index + 1 < len(found):
                value = found[index + 1]
            if not value or value.startswith("-"):
                raise ConfigError(f"{name}: needs the directory of a run")
            place = Path(value).expanduser().absolute()
            del found[index : index + (1 if equals else 2)]
            break
    if place is None:
        return found
    given = {_key(argument) for argument in found}
    own = [override for override in _overrides_of(place) if _key(override) not in {*given, *OF_A_RUN}]
    return [*own, *found, f"run.resume={quoted(place)}"]


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~").replace("/", ".")


def _overrides_of(place: Path) -> list[str]:
    from fedapp.server.run_directory.checkpoint import checkpoint_files, load_checkpoint  # they import torch

    files = [place] if place.suffix == ".safetensors" else checkpoint_files(place / "checkpoint")
    if not place.exists() or not files:
        raise ConfigError(f"{OPTION} {place}: holds no checkpoint of a run; give the directory that a run prints")
    try:
        return [str(override) for override in load_checkpoint(files[0]).values.get("overrides", [])]
    except FederationError as error:
        other = f"; go on from the one before it by {OPTION} {files[1]}" if len(files) > 1 else ""
        raise ConfigError(f"{OPTION} {place}: {error}{other}") from None
