"""Whatever comes through the worker's socket gives a message or a documented error, in bounded memory."""

import socket
from contextlib import suppress
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, RecordDict
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fedapp.client.worker import frames
from fedapp.client.worker.frames import LENGTHS, WorkerReply, WorkerRequest, receive_reply, receive_request
from fedapp.flower.serde import to_bytes

RECORD = to_bytes(RecordDict({"config": ConfigRecord({"a": 1})}))


def frame(header: bytes, *records: bytes) -> bytes:
    return LENGTHS.pack(len(header), *map(len, records)) + header + b"".join(records)


def read(receive: Any, content: bytes) -> Any:
    """What `receive` makes of these bytes, after which the other side hangs up."""
    mine, theirs = socket.socketpair()
    with mine, theirs:
        theirs.sendall(content)
        theirs.shutdown(socket.SHUT_WR)
        mine.settimeout(5)
        return receive(mine)


HEADERS = st.sampled_from(
    [
        b"{}",
        b"[]",
        b"5",
        b"null",
        b'[["error","x"]]',
        b'{"error":1}',
        b'{"kind":[]}',
        b"[" * 20_000,
        b"\xff",
        b"NaN",
        b"",
    ]
) | st.binary(max_size=40)
RECORDS = st.sampled_from([RECORD, b"", RECORD[:-1]]) | st.binary(max_size=60)
FRAMES = st.builds(frame, HEADERS, RECORDS, RECORDS) | st.binary(max_size=200)


@pytest.mark.parametrize("receive", [receive_request, receive_reply])
def test_only_documented_errors_come_out(receive: Any) -> None:
    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(FRAMES)
    @example(frame(b"[" * 20_000, b"", b""))
    @example(frame(b"5", b"", b""))
    def fuzz(content: bytes) -> None:
        with suppress(ValueError, KeyError, OSError):
            read(receive, content)

    fuzz()


def test_no_memory_is_taken_for_what_does_not_come() -> None:
    """Sixteen gigabytes are allowed for a part, and are not there."""
    asked: list[int] = []

    class Slow:
        def recv(self, size: int) -> bytes:
            asked.append(size)
            return LENGTHS.pack(2, frames.LARGEST, 0) if len(asked) == 1 else b"{}" if len(asked) == 2 else b""

    with pytest.raises(ConnectionResetError):
        receive_reply(Slow())  # type: ignore[arg-type]
    assert max(asked) <= frames.AT_ONCE


@pytest.mark.parametrize("lengths", [(frames.LARGEST_HEADER + 1, 0, 0), (2, frames.LARGEST + 1, 0), (2, 0, 2**64 - 1)])
def test_what_is_too_large_is_refused_at_once(lengths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="is no message"):
        read(receive_reply, LENGTHS.pack(*lengths))


def test_what_is_sent_comes_back() -> None:
    context = Context(run_id=1, node_id=2, node_config={"a": 1}, state=RecordDict(), run_config={"overrides": "x"})
    mine, theirs = socket.socketpair()
    with mine, theirs:
        frames.send_request(theirs, WorkerRequest("query", RecordDict(), context))
        assert receive_request(mine).context.node_config == {"a": 1}
        frames.send_reply(theirs, WorkerReply(RecordDict({"c": ConfigRecord({"x": 1})}), RecordDict(), "why"))
        found = receive_reply(mine)
        assert (found.error, found.content["c"]["x"]) == ("why", 1)
