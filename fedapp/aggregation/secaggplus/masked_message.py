"""The messages of the stage masked, in which clients train."""

from collections.abc import Iterable, Mapping

import torch
from flwr.app import ConfigRecord, RecordDict

from fedapp.aggregation.secaggplus.messages import CLIENT, HEADER, Header, header_record
from fedapp.aggregation.secaggplus.record_values import by_client, clients_of, many_bytes
from fedapp.common.state_digest import State
from fedapp.wire.instruction import Instruction, pack_instruction, unpack_instruction
from fedapp.wire.model import GlobalModel
from fedapp.wire.reply import Reply, pack_reply, unpack_reply

__all__ = ["pack_masked", "pack_masked_reply", "unpack_masked", "unpack_masked_reply"]

MASKED = "masked"


def pack_masked(
    header: Header,
    instruction: Instruction,
    model: GlobalModel,
    present: Iterable[int],
    sealed: Mapping[int, Mapping[int, bytes]],
) -> RecordDict:
    """The instruction to train, with the shares for each client, by sender."""
    content = pack_instruction(instruction, model)
    content[HEADER] = header_record(header, {"present": list(present)})
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
    present = clients_of(content.config_records[HEADER]["present"])
    sealed = {}
    for client in instruction.clients:
        record = content.config_records[f"{CLIENT}-{client}"]
        sealed[client] = by_client(record["from"], many_bytes(record["sealed"]))
    return instruction, state, present, sealed


def pack_masked_reply(header: Header, reply: Reply, packed: torch.Tensor | None) -> RecordDict:
    """`packed`: the sum of the masked vectors of the clients that are neither rejected nor have declined; uint8."""
    content = pack_reply(Reply(reply.reports, {}, {MASKED: packed} if packed is not None else {}))
    content[HEADER] = header_record(header)
    return content


def unpack_masked_reply(content: RecordDict) -> tuple[Reply, torch.Tensor | None]:
    reply = unpack_reply(content)
    if reply.updates or not set(reply.total) <= {MASKED}:
        raise ValueError("a reply with other arrays than a masked vector")
    return Reply(reply.reports), reply.total.get(MASKED)
