"""The messages of the stage masked, in which clients train."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from flwr.app import ConfigRecord, RecordDict

from fedapp.aggregation.secaggplus.batches import WHOLE, parts
from fedapp.aggregation.secaggplus.member import Sealed
from fedapp.aggregation.secaggplus.messages import ACCUSED, CLIENT, HEADER, Header, header_record
from fedapp.aggregation.whole_numbers.record_values import by_client, clients_of, many_bytes
from fedapp.common.state_digest import State
from fedapp.wire.instruction import Instruction, pack_instruction, unpack_instruction
from fedapp.wire.model import GlobalModel
from fedapp.wire.reply import Reply, pack_reply, unpack_reply

__all__ = ["pack_masked", "pack_masked_reply", "unpack_masked", "unpack_masked_reply"]

MASKED = "masked"
COLUMNS = (("sealed", "content"), ("self-commitments", "of_self"), ("key-commitments", "of_key"))


def pack_masked(
    header: Header,
    instruction: Instruction,
    model: GlobalModel,
    present: Iterable[int],
    sealed: Mapping[int, Mapping[int, Sealed]],
) -> RecordDict:
    """The instruction to train, with the shares for each client, by sender."""
    content = pack_instruction(instruction, model)
    content[HEADER] = header_record(header, {"present": list(present)})
    for client, shares in sealed.items():
        senders = sorted(shares)
        content[f"{CLIENT}-{client}"] = ConfigRecord(
            {"from": senders, **{name: [getattr(shares[sender], key) for sender in senders] for name, key in COLUMNS}}
        )
    return content


Masked = tuple[Instruction, State, tuple[int, ...], dict[int, dict[int, Sealed]]]


def unpack_masked(content: RecordDict) -> Masked:
    """The instruction, the global model, who is there, and by client the shares for it, by sender."""
    instruction, state = unpack_instruction(content)
    present = clients_of(content.config_records[HEADER]["present"])
    sealed = {}
    for client in instruction.clients:
        record = content.config_records[f"{CLIENT}-{client}"]
        columns = (many_bytes(record[name]) for name, _ in COLUMNS)
        sealed[client] = by_client(record["from"], [Sealed(*row) for row in zip(*columns, strict=True)])
    return instruction, state, present, sealed


def pack_masked_reply(
    header: Header, reply: Reply, packed: Mapping[int, torch.Tensor], accused: Mapping[int, Sequence[int]] | None = None
) -> RecordDict:
    """`packed`: the sums of the masked vectors of the clients that are neither rejected nor have declined, uint8: of
    complete batches, and of each other batch (`batches.parts`). `accused`: by client that is rejected, whose fault it
    says that is."""
    content = pack_reply(Reply(reply.reports, {}, {_name(part): vector for part, vector in packed.items()}))
    content[HEADER] = header_record(header)
    for client, named in (accused or {}).items():
        content[f"{CLIENT}-{client}"] = ConfigRecord({ACCUSED: list(named)})
    return content


def unpack_masked_reply(content: RecordDict, size: int = 1) -> tuple[Reply, list[tuple[list[int], torch.Tensor]]]:
    """The reports, and each sum with the clients that it is over. `size`: of a batch. Raises ValueError for other sums
    than those that the reports are about."""
    reply = unpack_reply(content)
    good = [report.client for report in reply.reports if report.rejected is None and not report.declined]
    found = parts(good, size)
    if reply.updates or set(reply.total) != {_name(part) for part in found}:
        raise ValueError(f"a reply with {len(reply.total)} masked vectors, {len(found)} are of its clients")
    return Reply(reply.reports), [(clients, reply.total[_name(part)]) for part, clients in found.items()]


def _name(part: int) -> str:
    return MASKED if part == WHOLE else f"{MASKED}-{part}"
