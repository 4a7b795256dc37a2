"""A party's part of the model on its disk: a snapshot after each epoch, and the run's result."""

import re
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load
from torch import Tensor

from fedapp.client.party.party_run import PartyRun
from fedapp.client.party.session_member import SessionMember
from fedapp.common.files import write_atomically
from fedapp.common.run_paths import KEPT
from fedapp.common.tensor_file import tensor_file
from fedapp.vertical.party_error import PartyError
from fedapp.vertical.saved_part import ABOUT, WEIGHTS, PartAbout, about_json

__all__ = ["about_part", "restore_snapshot", "save_part", "save_snapshot"]

NAME = re.compile(r"epoch-(\d+)\.safetensors")


def save_snapshot(folder: Path, epoch: int, state: Mapping[str, Tensor], checkpoint_every: int) -> None:
    """Written whole or not at all. Those that a checkpoint of the server may name stay."""
    folder.mkdir(parents=True, exist_ok=True)
    # It follows from the party's own data, so others on this machine must not read it.
    write_atomically(folder / f"epoch-{epoch:06d}.safetensors", tensor_file(state), mode=0o600)
    for number, path in _snapshots(folder).items():
        if number > epoch or number < epoch - (KEPT + 1) * checkpoint_every:
            path.unlink(missing_ok=True)


def restore_snapshot(folder: Path | None, epoch: int) -> dict[str, Tensor]:
    """Raises PartyError where there is none, or it is damaged."""
    path = _snapshots(folder).get(epoch) if folder is not None else None
    if path is None:
        raise PartyError("lost state", f"this party has not kept its part after epoch {epoch}")
    try:
        return dict(load(path.read_bytes()))
    except Exception:  # safetensors' reader has kinds of its own
        raise PartyError("lost state", f"this party's part after epoch {epoch} is damaged") from None


def save_part(folder: Path, state: Mapping[str, Tensor], about: PartAbout) -> None:
    """part.safetensors, the part of the finished model, and part.json, what it is of."""
    folder.mkdir(parents=True, exist_ok=True)
    model = {name.removeprefix("model/"): value for name, value in state.items() if name.startswith("model/")}
    write_atomically(folder / WEIGHTS, tensor_file(model), mode=0o600)
    write_atomically(folder / ABOUT, about_json(about), mode=0o600)


def about_part(run: PartyRun, member: SessionMember, name: str, sha256: str) -> PartAbout:
    """What a part is of, and what is needed to use it. `name`: the run's."""
    table, view, config = run.table(member.me.name), member.seen(), run.config
    parties = tuple(party.name for party in view.parties)
    return PartAbout(
        party=table.name,
        run=name,
        parties=parties,
        label_party=view.label_party,
        position=parties.index(table.name),
        features=table.features,
        reading=table.reading,
        classes=run.options.task.schema.classes,
        normalise=config.vertical.normalise,
        unmatched=config.vertical.unmatched,
        embedding=config.vertical.embedding,
        top=None if config.vertical.top is None else tuple(config.vertical.top),
        model=config.model,
        kind=config.task.kind,
        loss=config.task.loss,
        fusion=config.vertical.fusion,
        sha256=sha256,
    )


def _snapshots(folder: Path) -> dict[int, Path]:
    return {int(match[1]): path for path in folder.glob("*") if (match := NAME.fullmatch(path.name))}
