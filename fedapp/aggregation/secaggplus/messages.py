"""Messages of secure aggregation: four stages, each a question to the clients of a SuperNode and their answers.

| stage  | server to SuperNode                         | reply                                                        |
|--------|---------------------------------------------|--------------------------------------------------------------|
| keys   | round, clients                              | by client: two public keys, a signature of its device        |
| shares | the view: members, weights, keys, the model | by client: sealed shares, commitments                        |
|        | as a digest                                 |                                                              |
| masked | arrays: the model; who is there; by client  | arrays: the sum of its clients' masked vectors; metrics: by  |
|        | the shares for it                           | client, what it spent of its privacy                         |
| unmask | whose vectors came, and whose did not       | by client: its shares of their secrets                       |

Every message says its stage, run and round, and after the stage "keys" the digest of the round's view.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from flwr.app import ConfigRecord, RecordDict

from fedapp.aggregation.secaggplus.cohort_view import CohortView, Member
from fedapp.aggregation.secaggplus.member import Revealed, Shared
from fedapp.aggregation.secaggplus.protocol_error import ProtocolError
from fedapp.aggregation.secaggplus.settings import Settings
from fedapp.common.state_digest import State
from fedapp.wire.instruction import Instruction, pack_instruction, unpack_instruction
from fedapp.wire.model import GlobalModel
from fedapp.wire.records import numbers, text, whole
from fedapp.wire.reply import Reply, pack_reply, unpack_reply

__all__ = [
    "Header",
    "key_answers",
    "pack_answers",
    "pack_masked",
    "pack_masked_reply",
    "pack_question",
    "pack_view",
    "revealed_answers",
    "shared_answers",
    "unpack_answers",
    "unpack_header",
    "unpack_masked",
    "unpack_masked_reply",
    "unpack_revealed",
    "unpack_shared",
    "unpack_survivors",
    "unpack_view",
]

HEADER, CLIENT, MASKED = "secure", "client", "masked"
T = TypeVar("T")
Entries = dict[str, int | float | str | bytes | bool | list[int] | list[float] | list[str] | list[bytes] | list[bool]]


@dataclass(frozen=True)
class Header:
    """What a message of the protocol is about. `clients`: of the SuperNode. `digest`: of the round's view."""

    stage: str
    run: str
    server_round: int
    clients: tuple[int, ...]
    digest: bytes = b""

    def expect(self, wanted: "Header") -> None:
        """Raises ProtocolError, by name, for an answer to another question."""
        for name, kind in (("stage", "wrong stage"), ("run", "wrong run"), ("server_round", "wrong round")):
            if (found := getattr(self, name)) != getattr(wanted, name):
                raise ProtocolError(kind, f"an answer about {text(found)}, asked about {getattr(wanted, name)}")
        if self.digest != wanted.digest:
            raise ProtocolError("wrong cohort", "an answer about another cohort")
        if self.clients != wanted.clients:
            raise ProtocolError("forged", "an answer for other clients than those that were asked")


def pack_question(header: Header, **entries: list[int]) -> RecordDict:
    """`entries`: further lists of clients."""
    return RecordDict({HEADER: _header(header, entries)})


def _header(header: Header, more: Mapping[str, list[int]] | None = None) -> ConfigRecord:
    return ConfigRecord(
        {
            "stage": header.stage,
            "run": header.run,
            "server-round": header.server_round,
            "clients": list(header.clients),
            "digest": header.digest,
            **(more or {}),
        }
    )


def unpack_header(content: RecordDict) -> Header:
    """Raises ValueError, KeyError or TypeError where it is malformed, as every function here that unpacks."""
    record = content.config_records[HEADER]
    return Header(
        text(record["stage"]),
        text(record["run"]),
        whole(record["server-round"]),
        _clients(record["clients"]),
        _bytes(record["digest"]),
    )


# --- the view ---------------------------------------------------------------------------------------------------


def pack_view(view: CohortView) -> ConfigRecord:
    members = view.members
    return ConfigRecord(
        {
            "run": view.run,
            "server-round": view.server_round,
            "model": view.model,
            "work": view.work,
            "clients": [member.client for member in members],
            "weights": [member.weight for member in members],
            "cipher-keys": [member.cipher_key for member in members],
            "mask-keys": [member.mask_key for member in members],
            "signatures": [member.signature for member in members],
        }
    )


def unpack_view(record: ConfigRecord, settings: Settings) -> CohortView:
    """`settings` are the receiver's own, from the run's config: no message changes them."""
    columns = (
        _clients(record["clients"]),
        [float(weight) for weight in numbers(record["weights"])],
        *(_many_bytes(record[name]) for name in ("cipher-keys", "mask-keys", "signatures")),
    )
    members = tuple(Member(*row) for row in zip(*columns, strict=True))
    told = (text(record["run"]), whole(record["server-round"]), text(record["model"]))
    return CohortView(*told, members, settings, text(record["work"]))


# --- answers of the stages keys, shares and unmask ----------------------------------------------------------------


def pack_answers(header: Header, answers: Mapping[int, Entries], refused: Mapping[int, str]) -> RecordDict:
    """`refused`: by client, why it does not answer."""
    content = RecordDict({HEADER: _header(header)})
    for client, entries in answers.items():
        content[f"{CLIENT}-{client}"] = ConfigRecord(entries)
    for client, why in refused.items():
        content[f"{CLIENT}-{client}"] = ConfigRecord({"refused": why})
    return content


def unpack_answers(content: RecordDict, clients: Iterable[int]) -> tuple[dict[int, ConfigRecord], dict[int, str]]:
    """By client its answer; and why others do not answer."""
    answers, refused = {}, {}
    for client in clients:
        record = content.config_records.get(f"{CLIENT}-{client}", ConfigRecord({"refused": "it did not answer"}))
        if "refused" in record:
            refused[client] = text(record["refused"])
        else:
            answers[client] = record
    return answers, refused


def key_answers(cipher_key: bytes, mask_key: bytes, signature: bytes) -> Entries:
    return {"cipher-key": cipher_key, "mask-key": mask_key, "signature": signature}


def shared_answers(shared: Shared) -> Entries:
    holders = sorted(shared.shares)
    return {
        "to": sorted(shared.sealed),
        "sealed": [shared.sealed[holder] for holder in sorted(shared.sealed)],
        "seed": shared.seed,
        "holders": holders,
        "self-shares": [shared.shares[holder][0] for holder in holders],
        "key-shares": [shared.shares[holder][1] for holder in holders],
    }


def unpack_shared(record: ConfigRecord) -> Shared:
    selfs, keys = (_many_bytes(record[name]) for name in ("self-shares", "key-shares"))
    pairs = list(zip(selfs, keys, strict=True))
    return Shared(
        _by_client(record["to"], _many_bytes(record["sealed"])),
        _bytes(record["seed"]),
        _by_client(record["holders"], pairs),
    )


def revealed_answers(revealed: Revealed) -> Entries:
    found: Entries = {}
    for name, shares in (("self", revealed.self_shares), ("key", revealed.key_shares)):
        found[f"{name}-of"] = sorted(shares)
        found[f"{name}-shares"] = [shares[owner] for owner in sorted(shares)]
    return found


def unpack_revealed(record: ConfigRecord) -> Revealed:
    found = [_by_client(record[f"{name}-of"], _many_bytes(record[f"{name}-shares"])) for name in ("self", "key")]
    return Revealed(*found)


def unpack_survivors(content: RecordDict) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Whose vectors came, and whose did not, in a question of the stage unmask."""
    record = content.config_records[HEADER]
    return _clients(record["survivors"]), _clients(record["dropped"])


# --- the stage masked -------------------------------------------------------------------------------------------


def pack_masked(
    header: Header,
    instruction: Instruction,
    model: GlobalModel,
    present: Iterable[int],
    sealed: Mapping[int, Mapping[int, bytes]],
) -> RecordDict:
    """The instruction to train, with the shares for each client, by sender."""
    content = pack_instruction(instruction, model)
    content[HEADER] = _header(header, {"present": list(present)})
    for client, shares in sealed.items():
        senders = sorted(shares)
        content[f"{CLIENT}-{client}"] = ConfigRecord(
            {"from": senders, "sealed": [shares[sender] for sender in senders]}
        )
    return content


Masked = tuple[Instruction, State, tuple[int, ...], dict[int, dict[int, bytes]]]


def unpack_masked(content: RecordDict) -> Masked:
    """The instruction, the global model, who is there, and by client the shares for it, by sender."""
    instruction, state = unpack_instruction(content)
    present = _clients(content.config_records[HEADER]["present"])
    sealed = {}
    for client in instruction.clients:
        record = content.config_records[f"{CLIENT}-{client}"]
        sealed[client] = _by_client(record["from"], _many_bytes(record["sealed"]))
    return instruction, state, present, sealed


def pack_masked_reply(header: Header, reply: Reply, packed: torch.Tensor | None) -> RecordDict:
    """`packed`: the sum of the masked vectors of the clients that are neither rejected nor have declined; uint8."""
    content = pack_reply(Reply(reply.reports, {}, {MASKED: packed} if packed is not None else {}))
    content[HEADER] = _header(header)
    return content


def unpack_masked_reply(content: RecordDict) -> tuple[Reply, torch.Tensor | None]:
    reply = unpack_reply(content)
    if reply.updates or not set(reply.total) <= {MASKED}:
        raise ValueError("a reply with other arrays than a masked vector")
    return Reply(reply.reports), reply.total.get(MASKED)


def _clients(value: object) -> tuple[int, ...]:
    return tuple(whole(client) for client in numbers(value))


def _bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    raise TypeError(f"expected bytes, got {type(value).__name__}")


def _many_bytes(value: object) -> list[bytes]:
    if isinstance(value, list):
        return [_bytes(item) for item in value]
    raise TypeError(f"expected a list of bytes, got {type(value).__name__}")


def _by_client(clients: object, values: Sequence[T]) -> dict[int, T]:
    """Raises ProtocolError where a client is there twice."""
    keys = _clients(clients)
    if len(set(keys)) != len(keys):
        raise ProtocolError("duplicate share", "two shares for, or of, the same client")
    return dict(zip(keys, values, strict=True))
