"""What the server asks of parties, and what they reply: orders and answers as records, read strictly.

All that one party says to another is a sealed payload. A party's name becomes part of a key and a path, so its form is
checked wherever it comes from.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flwr.app import ConfigRecord, RecordDict

from fedapp.vertical.session import Party, View
from fedapp.wire.records import count, number, numbers, text, whole

__all__ = ["Order", "PartyAnswer", "Payload", "pack_answers", "pack_order", "unpack_answers", "unpack_order"]

NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
HEX = re.compile("[0-9a-f]{16}")
ORDER, VIEW, TO, FROM = "order", "view", "to/", "from/"


@dataclass(frozen=True)
class Payload:
    """Sealed content. `party`: the other end, from whom it is or for whom. `number`: of the exchange in which it was
    sealed."""

    party: str
    purpose: str
    number: int
    sealed: bytes


@dataclass(frozen=True)
class Order:
    """A stage for the parties in `payloads`, each with what others have sent it.

    `number` only increases in a session. `epoch` and `batch` count from 1; `run` names the run in which a part is kept,
    "" before it has a name. The learning rate is `lr_factor` times that of the config.
    """

    stage: str
    session: str
    number: int
    payloads: Mapping[str, Sequence[Payload]]
    run: str = ""
    epoch: int = 0
    batch: int = 0
    lr_factor: float = 1.0
    view: View | None = None


@dataclass(frozen=True)
class PartyAnswer:
    """One party's reply. `fault`: why there is none. `figures` and `facts`: what the server may know; `joined`: the
    party itself, in the first stage."""

    party: str
    fault: str = ""
    payloads: Sequence[Payload] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    joined: Party | None = None


def pack_order(order: Order) -> RecordDict:
    config = ConfigRecord(
        {
            "stage": order.stage,
            "session": order.session,
            "number": order.number,
            "run": order.run,
            "epoch": order.epoch,
            "batch": order.batch,
            "lr-factor": order.lr_factor,
        }
    )
    content = RecordDict({ORDER: config})
    if order.view is not None:
        content[VIEW] = pack_parties(order.view.parties)
    for party, payloads in order.payloads.items():
        content[f"{TO}{party}"] = ConfigRecord(_columns(payloads))
    return content


def unpack_order(content: RecordDict, config: str) -> Order:
    """`config`: the receiver's own digest. Raises ValueError, KeyError or TypeError where it is malformed."""
    record = content.config_records[ORDER]
    session, run = text(record["session"]), text(record["run"])
    if not HEX.fullmatch(session) or (run and not HEX.fullmatch(run)):  # the run's becomes part of a path
        raise ValueError("expected 16 hexadecimal digits for session and run")
    lr_factor = float(number(record["lr-factor"]))
    if not 0 <= lr_factor < 1e6:
        raise ValueError(f"expected a learning rate factor, got {lr_factor}")
    view = content.config_records.get(VIEW)
    return Order(
        text(record["stage"]),
        session,
        count(record["number"]),
        {name: _payloads(found) for name, found in _named(content, TO)},
        run,
        count(record["epoch"]),
        count(record["batch"]),
        lr_factor,
        View(session, config, unpack_parties(view)) if view is not None else None,
    )


def pack_answers(answers: Iterable[PartyAnswer], about: Mapping[str, str]) -> RecordDict:
    """`about`: what the SuperNode says of itself."""
    content = RecordDict({ORDER: ConfigRecord(dict(about))})
    for answer in answers:
        found = ConfigRecord({"fault": answer.fault, **_columns(answer.payloads)})
        found["figure-names"], found["figures"] = list(answer.figures), [float(v) for v in answer.figures.values()]
        found["fact-names"], found["facts"] = list(answer.facts), list(answer.facts.values())
        content[f"{FROM}{answer.party}"] = found
        if answer.joined is not None:
            content[f"{VIEW}/{answer.party}"] = pack_parties([answer.joined])
    return content


def unpack_answers(content: RecordDict) -> tuple[dict[str, PartyAnswer], dict[str, str]]:
    """By party, and what the SuperNode says of itself. Raises ValueError, KeyError or TypeError where malformed."""
    found = {}
    for name, record in _named(content, FROM):
        joined = content.config_records.get(f"{VIEW}/{name}")
        values = numbers(record["figures"])
        found[name] = PartyAnswer(
            name,
            text(record["fault"]),
            _payloads(record),
            dict(zip(_texts(record["figure-names"]), values, strict=True)),
            dict(zip(_texts(record["fact-names"]), _texts(record["facts"]), strict=True)),
            unpack_parties(joined)[0] if joined is not None else None,
        )
        if found[name].joined is not None and found[name].joined.name != name:  # type: ignore[union-attr]
            raise ValueError("a party speaks for another one")
    return found, {key: text(value) for key, value in content.config_records[ORDER].items()}


def pack_parties(parties: Sequence[Party]) -> ConfigRecord:
    return ConfigRecord(
        {
            "names": [party.name for party in parties],
            "clients": [party.client for party in parties],
            "labels": [party.labels for party in parties],
            "columns": [party.columns for party in parties],
            "rows": [party.rows for party in parties],
            "keys": [party.key for party in parties],
            "signatures": [party.signature for party in parties],
        }
    )


def unpack_parties(record: ConfigRecord) -> tuple[Party, ...]:
    """Raises ValueError or TypeError."""
    rows = zip(
        map(_name, _texts(record["names"])),
        map(whole, numbers(record["clients"])),
        map(bool, _list(record["labels"])),
        map(count, numbers(record["columns"])),
        map(count, numbers(record["rows"])),
        _bytes(record["keys"]),
        _bytes(record["signatures"]),
        strict=True,
    )
    return tuple(Party(*row) for row in rows)


def _columns(payloads: Sequence[Payload]) -> dict[str, Any]:
    return {
        "parties": [payload.party for payload in payloads],
        "purposes": [payload.purpose for payload in payloads],
        "numbers": [payload.number for payload in payloads],
        "sealed": [payload.sealed for payload in payloads],
    }


def _payloads(record: ConfigRecord) -> tuple[Payload, ...]:
    columns = (
        map(_name, _texts(record["parties"])),
        _texts(record["purposes"]),
        map(count, numbers(record["numbers"])),
    )
    return tuple(Payload(*row) for row in zip(*columns, _bytes(record["sealed"]), strict=True))


def _named(content: RecordDict, opening: str) -> list[tuple[str, ConfigRecord]]:
    records = content.config_records.items()
    return [(_name(key.removeprefix(opening)), value) for key, value in records if key.startswith(opening)]


def _name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError("a party's name has small letters, digits and _, 32 at most, and opens with a letter")
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got {type(value).__name__}")
    return value


def _texts(value: object) -> list[str]:
    return [text(item) for item in _list(value)]


def _bytes(value: object) -> list[bytes]:
    found = _list(value)
    if not all(isinstance(item, bytes) for item in found):
        raise TypeError("expected a list of bytes")
    return [item for item in found if isinstance(item, bytes)]
