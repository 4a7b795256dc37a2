"""What goes through the worker's socket: a request, and its reply."""

import json
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import Context, RecordDict

from fedapp.flower.serde import from_bytes, to_bytes

__all__ = ["WorkerReply", "WorkerRequest", "receive_reply", "receive_request", "send_reply", "send_request"]

LENGTHS = struct.Struct("!QQQ")  # of the header, which is JSON, and two RecordDicts
LARGEST, LARGEST_HEADER = 1 << 34, 1 << 24  # bytes of a part
AT_ONCE = 1 << 20  # bytes


@dataclass(frozen=True)
class WorkerRequest:
    """A message of `kind` (query, train, evaluate), and the context that Flower gives with it."""

    kind: str
    content: RecordDict
    context: Context


@dataclass(frozen=True)
class WorkerReply:
    """The reply's content, or the text of the error instead; and the context's state afterwards."""

    content: RecordDict
    state: RecordDict
    error: str = ""


def send_request(connection: socket.socket, request: WorkerRequest) -> None:
    context = request.context
    header = {
        "kind": request.kind,
        "run_id": context.run_id,
        "node_id": context.node_id,
        "node_config": context.node_config,
        "run_config": context.run_config,
    }
    _send(connection, header, (request.content, context.state))


def receive_request(connection: socket.socket) -> WorkerRequest:
    """Raises ValueError, KeyError or OSError for anything else."""
    header, (content, state) = _receive(connection)
    names = ("run_id", "node_id", "node_config", "run_config")
    return WorkerRequest(str(header["kind"]), content, Context(state=state, **{name: header[name] for name in names}))


def send_reply(connection: socket.socket, reply: WorkerReply) -> None:
    _send(connection, {"error": reply.error}, (reply.content, reply.state))


def receive_reply(connection: socket.socket) -> WorkerReply:
    """Raises ValueError, KeyError or OSError for anything else."""
    header, (content, state) = _receive(connection)
    return WorkerReply(content, state, str(header["error"]))


def _send(connection: socket.socket, header: dict[str, Any], records: Sequence[RecordDict]) -> None:
    parts = [json.dumps(header).encode(), *(to_bytes(item) for item in records)]
    connection.sendall(LENGTHS.pack(*(len(part) for part in parts)))
    for part in filter(None, parts):  # the receiver may close once it has all bytes; sending b"" would then fail
        connection.sendall(part)


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[RecordDict]]:
    lengths = LENGTHS.unpack(_exactly(connection, LENGTHS.size))
    if lengths[0] > LARGEST_HEADER or max(lengths) > LARGEST:
        raise ValueError(f"a part of {max(lengths)} bytes is no message")
    line, *records = (_exactly(connection, length) for length in lengths)
    try:
        header = json.loads(bytes(line))
    except RecursionError:
        raise ValueError("a header that is nested too deeply") from None
    if not isinstance(header, dict):
        raise ValueError("a header that is no JSON object")
    return header, [from_bytes(bytes(record)) for record in records]


def _exactly(connection: socket.socket, length: int) -> bytearray:
    """As it comes: memory is taken for what is there, not for what was promised."""
    found = bytearray()
    while len(found) < length:
        part = connection.recv(min(length - len(found), AT_ONCE))
        if not part:
            raise ConnectionResetError("the other side has gone")
        found += part
    return found
