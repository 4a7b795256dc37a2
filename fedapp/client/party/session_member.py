"""A party in a session: what it keeps from order to order, live and as records of its SuperNode's state.

The state holds secrets of the session. It lies in the SuperNode's memory, and is written only together with a reply, so
that whatever goes wrong with an order, none of its numbers has been used.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from flwr.app import ConfigRecord, RecordDict
from safetensors.torch import load
from torch import Tensor

from fedapp.common.tensor_file import tensor_file
from fedapp.vertical.matching import Blinded, Distinct
from fedapp.vertical.orders import pack_parties, unpack_parties
from fedapp.vertical.parts import Learner
from fedapp.vertical.party_error import PartyError
from fedapp.vertical.session import Party, View
from fedapp.vertical.split_model import Embedded
from fedapp.wire.records import arrays_to_state, state_to_arrays, text, whole

__all__ = ["LastBatch", "SessionMember", "forget", "keep", "kept", "version_of"]


@dataclass(frozen=True)
class LastBatch:
    """The last batch that a party has embedded (or trained on, at the label party): `number`, 0 for none."""

    number: int = 0
    epoch: int = 0
    batch: int = 0


@dataclass
class SessionMember:
    """`me`: as this party has told the others. `number`: the last one that it has used. `hidden`: by other party, what
    it blinded. `rows`: its rows of each training entity, and of each held-out one; at the label party the former's
    targets, too. `gradients`: at the label party, by
    what they are of, those of the last batch."""

    session: str
    private: bytes
    me: Party
    version: int = 0
    number: int = 0
    view: View | None = None
    channels: dict[str, bytes] = field(default_factory=dict)
    hidden: dict[str, Blinded | Distinct] = field(default_factory=dict)
    rows: dict[str, Tensor] = field(default_factory=dict)
    last: LastBatch = field(default_factory=LastBatch)
    gradients: dict[str, Tensor] = field(default_factory=dict)
    losses: tuple[float, int] = (0.0, 0)
    learner: Learner | None = None
    stored: dict[str, Tensor] | None = None  # the rows that are in the state already
    stored_parties: tuple[Party, ...] | None = ()  # likewise; () for none
    paid: Tensor | None = None  # the randomised targets that are in the ledger
    embedded: Embedded | None = None  # of the last batch, where this process has embedded it and nothing came between
    batches: tuple[int, list[Tensor]] | None = None  # of an epoch, made when first asked for

    def trains(self) -> Learner:
        """Raises PartyError before there is anything to train."""
        if self.learner is None or not self.rows:
            raise PartyError("wrong stage", "this party has matched no entities yet")
        return self.learner

    def seen(self) -> View:
        """Raises PartyError before the parties are known."""
        if self.view is None:
            raise PartyError("wrong stage", "this party does not know the others yet")
        return self.view


def keep(state: RecordDict, member: SessionMember) -> None:
    """Write a member into the state, in which its live form is recognised by `version`."""
    member.version += 1
    name, exchange = member.me.name, member.last
    state[f"party-{name}"] = ConfigRecord(
        {
            "session": member.session,
            "private": member.private,
            "version": member.version,
            "number": member.number,
            "last": [exchange.number, exchange.epoch, exchange.batch],
            "loss": member.losses[0],
            "seen": member.losses[1],
            "config": member.view.config if member.view is not None else "",
            "channel-names": list(member.channels),
            "channels": list(member.channels.values()),
            "hidden-names": list(member.hidden),
            "hidden": [part for hidden in member.hidden.values() for part in _packed(hidden)],
        }
    )
    if member.stored_parties is not (parties := member.view.parties if member.view is not None else None):
        state[f"view-{name}"] = pack_parties(parties if parties is not None else [member.me])
        member.stored_parties = parties
    if member.stored is not member.rows:
        state[f"rows-{name}"] = state_to_arrays(member.rows)
        member.stored = member.rows
    tensors = {f"gradient/{key}": value for key, value in member.gradients.items()}
    if member.learner is not None:
        tensors |= {f"part/{key}": value for key, value in member.learner.part.state().items()}
    # As one file: a record of arrays would take ten times as long, after every batch.
    state[f"tensors-{name}"] = ConfigRecord({"content": tensor_file(tensors) if tensors else b""})


def kept(state: RecordDict, name: str, session: str) -> tuple[SessionMember, Mapping[str, Tensor]]:
    """A member without its learner, and that one's state. Raises PartyError where this SuperNode knows of none."""
    record = state.config_records.get(f"party-{name}")
    if record is None or record["session"] != session:
        raise PartyError("lost state", "this SuperNode knows nothing of the session: it has been started anew")
    parties = unpack_parties(state.config_records[f"view-{name}"])
    view = View(session, text(record["config"]), parties) if record["config"] else None
    content = _raw(state.config_records[f"tensors-{name}"]["content"])
    tensors = dict(load(content)) if content else {}
    rows = arrays_to_state(state.array_records[f"rows-{name}"])
    names, hidden = list(map(str, _items(record["hidden-names"]))), _items(record["hidden"])
    member = SessionMember(
        session,
        _raw(record["private"]),
        next(party for party in parties if party.name == name),
        version=whole(record["version"]),
        number=whole(record["number"]),
        view=view,
        channels=dict(
            zip(map(str, _items(record["channel-names"])), map(_raw, _items(record["channels"])), strict=True)
        ),
        hidden={other: _unpacked(hidden[4 * at : 4 * at + 4]) for at, other in enumerate(names)},
        rows=rows,
        stored=rows,
        stored_parties=view.parties if view is not None else None,
        last=LastBatch(*(whole(value) for value in _items(record["last"]))),
        gradients={key.removeprefix("gradient/"): v for key, v in tensors.items() if key.startswith("gradient/")},
        losses=(float(str(record["loss"])), whole(record["seen"])),
    )
    return member, {key.removeprefix("part/"): value for key, value in tensors.items() if key.startswith("part/")}


def version_of(state: RecordDict, name: str) -> int:
    record = state.config_records.get(f"party-{name}")
    return whole(record["version"]) if record is not None else 0


def forget(state: RecordDict, name: str) -> None:
    """Delete all that is kept of a party's session."""
    for kind in ("party", "view", "rows", "tensors"):
        if (key := f"{kind}-{name}") in state:
            del state[key]


def _packed(hidden: Blinded | Distinct) -> list[bytes]:
    blinded = hidden.blinded if isinstance(hidden, Distinct) else hidden
    of_row = hidden.of_row.tobytes() if isinstance(hidden, Distinct) else b""
    return [blinded.scalar, blinded.points, blinded.rows.tobytes(), of_row]


def _unpacked(parts: list[object]) -> Blinded | Distinct:
    scalar, points, rows, of_row = map(_raw, parts)
    blinded = Blinded(scalar, points, np.frombuffer(rows, np.int64))
    return Distinct(blinded, np.frombuffer(of_row, np.int64)) if of_row else blinded


def _items(value: object) -> list[object]:
    assert isinstance(value, list)
    return value


def _raw(value: object) -> bytes:
    assert isinstance(value, bytes)
    return value
