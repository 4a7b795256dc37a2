"""Going on with a run that ended early: which checkpoint, and whether it may go on under this config."""

from collections.abc import Collection, Mapping
from logging import WARNING
from pathlib import Path
from typing import Any

from torch import Tensor

from fedapp.common.errors import ConfigError, FederationError
from fedapp.common.logger import log
from fedapp.common.nested import differences, is_among
from fedapp.config.same_maths import FREE
from fedapp.server.run_directory.checkpoint import Checkpoint, checkpoint_files, load_checkpoint
from fedapp.server.run_directory.history import History

__all__ = ["check_same_data", "check_same_form", "find_checkpoint"]


def find_checkpoint(
    directory: Path,
    resume: str | None,
    config: Mapping[str, Any],
    *,
    free: Collection[str] = (),
    quiet: bool = False,
) -> Checkpoint | None:
    """The checkpoint to go on from; None to begin anew.

    With `auto` the newest sound one in `directory` serves, if there is any checkpoint; with a path, that run's newest,
    or the very file. Raises ConfigError or FederationError for one that is damaged, does not belong to the run
    directory, or was made under a config that computes something else. Damaged ones that are passed over are logged,
    unless `quiet`. `free`: further keys that do not change what a round computes.
    """
    if resume is None:
        return None
    files = checkpoint_files(directory / "checkpoint")
    if not files and resume == "auto" and not _past_round_zero(directory):
        return None
    path = Path(resume).expanduser()
    if resume != "auto" and not path.exists():
        there = f"; there are {', '.join(file.name for file in files)}" if files else ""
        raise ConfigError(f"run.resume={resume}: there is no such run directory or checkpoint{there}")
    if path.suffix == ".safetensors":
        files = [path]
    if not files:
        raise ConfigError(f"run.resume={resume}: {directory / 'checkpoint'} holds no checkpoint")
    reasons: list[str] = []
    for file in files if resume == "auto" else files[:1]:
        try:
            found = load_checkpoint(file)
            History.check(directory, found.values["history"])
        except FederationError as error:
            reasons.append(str(error))
            continue
        for reason in reasons if not quiet else ():
            log(WARNING, "%s; going on from the one before it", reason)
        check_same_maths(found, config, FREE.union(free))
        return found
    if resume != "auto" and len(files) > 1:
        raise FederationError(f"{reasons[0]}. Go on from the one before it by run.resume={files[1]}")
    raise FederationError("\n".join(reasons) + "\nThis run cannot go on. A new one needs another run.output_dir")


def _past_round_zero(directory: Path) -> bool:
    """Whether there is a run whose lines would be lost by beginning anew; killed before its first checkpoint, no."""
    metrics = directory / "metrics.jsonl"
    return (directory / "summary.json").exists() or (metrics.exists() and metrics.read_bytes().count(b"\n") > 1)


def check_same_maths(found: Checkpoint, config: Mapping[str, Any], free: frozenset[str]) -> None:
    """Raises ConfigError, naming the keys, if this config would compute something else than the checkpoint's."""
    changed = differences(found.config, config, lambda key: not is_among(key, free))
    if changed:
        lines = "".join(f"\n  {line}" for line in changed)
        own = [override for override in found.values.get("overrides", []) if not override.startswith("run.")]
        raise ConfigError(
            f"this run cannot go on with another config, since it would compute something else:{lines}\n"
            f"Go on with the overrides that it was started with, {' '.join(own) or '(none)'}, or set these keys to what"
            " they were"
        )
    rounds = config["federation"]["num_rounds"]
    if rounds < found.server_round:
        raise ConfigError(f"federation.num_rounds={rounds}: this run has done {found.server_round} rounds already")


def check_same_form(found: Checkpoint, model: Mapping[str, Tensor]) -> None:
    """Raises FederationError where this code makes another model from the same config."""
    before = {name: (value.shape, value.dtype) for name, value in found.model.items()}
    now = {name: (value.shape, value.dtype) for name, value in model.items()}
    if before != now:
        names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        raise FederationError(
            f"the checkpoint's model differs in {', '.join(names[:5])} from the one that this code makes of the same"
            " config; go on with the code that began the run, or start a new one"
        )


def check_same_data(found: Checkpoint, data: Mapping[str, str], *, refuse: bool) -> dict[str, str]:
    """By kind, a warning where data is not as it was when the run began; a ConfigError if `refuse`. `data`: by whose it
    is, what shows that."""
    before = found.values["data"]
    changed = [who for who, now in data.items() if before.get(who, now) != now]
    if not changed:
        return {}
    named = f"{', '.join(changed[:10])}{' ...' if len(changed) > 10 else ''}"
    said = f"the data of {named} is not what it was when this run began"
    if refuse:
        raise ConfigError(
            f"{said}, so it would end with another model: restore the data, or begin a new run from its model by"
            " run.initial_model=<this run's directory>"
        )
    return {"data changed": f"{said}; it goes on with what they have now"}
