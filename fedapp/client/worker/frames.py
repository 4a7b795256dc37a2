"""What goes through the worker's socket: a question, and its answer."""

import json
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import Context, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from google.protobuf.message import DecodeError

__all__ = ["Answer", "Question", "receive_answer", "receive_question", "send_answer", "send_question"]

LENGTHS = struct.Struct("!QQQ")  # of the header, which is JSON, and two RecordDicts
LARGEST = 1 << 34  # bytes of a part: more is no message, but a mistake


@dataclass(frozen=True)
class Question:
    """A message of `kind` (query, train, evaluate), and the context that Flower gives with it."""

    kind: str
    content: RecordDict
    context: Context


@dataclass(frozen=True)
class Answer:
    """The reply's content, or the error that there was instead; and the context's state afterwards."""

    content: RecordDict
    state: RecordDict
    error: str = ""


def send_question(connection: socket.socket, question: Question) -> None:
    context = question.context
    header = {
        "kind": question.kind,
        "run_id": context.run_id,
        "node_id": context.node_id,
        "node_config": context.node_config,
        "run_config": context.run_config,
    }
    _send(connection, header, (question.content, context.state))


def receive_question(connection: socket.socket) -> Question:
    """Raises ValueError, KeyError or OSError for what is none."""
    header, (content, state) = _receive(connection)
    names = ("run_id", "node_id", "node_config", "run_config")
    return Question(str(header["kind"]), content, Context(state=state, **{name: header[name] for name in names}))


def send_answer(connection: socket.socket, answer: Answer) -> None:
    _send(connection, {"error": answer.error}, (answer.content, answer.state))


def receive_answer(connection: socket.socket) -> Answer:
    """Raises ValueError, KeyError or OSError for what is none."""
    header, (content, state) = _receive(connection)
    return Answer(content, state, str(header["error"]))


def _send(connection: socket.socket, header: dict[str, Any], records: Sequence[RecordDict]) -> None:
    parts = [json.dumps(header).encode(), *(recorddict_to_proto(item).SerializeToString() for item in records)]
    connection.sendall(LENGTHS.pack(*(len(part) for part in parts)))
    for part in filter(None, parts):  # who has all of it may answer and hang up, and then even no byte is one too many
        connection.sendall(part)


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[RecordDict]]:
    lengths = LENGTHS.unpack(_exactly(connection, LENGTHS.size))
    if max(lengths) > LARGEST:
        raise ValueError(f"a part of {max(lengths)} bytes is no message")
    header, *records = (_exactly(connection, length) for length in lengths)
    try:
        protos = [ProtoRecordDict.FromString(bytes(record)) for record in records]
    except DecodeError as error:
        raise ValueError(str(error)) from None
    return dict(json.loads(bytes(header))), [recorddict_from_proto(proto) for proto in protos]


def _exactly(connection: socket.socket, length: int) -> bytearray:
    found = bytearray(length)
    view, at = memoryview(found), 0
    while at < length:
        count = connection.recv_into(view[at:])
        if not count:
            raise ConnectionResetError("the other side has gone")
        at += count
    return found
