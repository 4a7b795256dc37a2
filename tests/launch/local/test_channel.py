"""What passes between the processes of a run: whole, in order, and with nothing left open."""

import os
import socket
import threading
from typing import Any

import pytest
import torch
from flwr.app import ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from fedapp.launch.local.channel import receive, send, take_record, write_record
from fedapp.wire.records import arrays_to_state, state_to_arrays

SHAPES = st.lists(st.integers(0, 5), max_size=3)
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool])
TENSORS = st.dictionaries(st.text(min_size=1, max_size=8), st.tuples(SHAPES, DTYPES), max_size=4)
VALUES = st.one_of(st.integers(-(2**63), 2**63 - 1), st.text(max_size=20), st.binary(max_size=20), st.booleans())


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@given(first=TENSORS, second=TENSORS, config=st.dictionaries(st.text(min_size=1, max_size=8), VALUES, max_size=4))
@settings(max_examples=50, deadline=None)
def test_a_record_comes_back_as_it_was(first: dict, second: dict, config: dict) -> None:  # type: ignore[type-arg]
    made = [
        {name: torch.ones(shape).mul(3).to(dtype) for name, (shape, dtype) in tensors.items()}
        for tensors in (first, second)
    ]
    record = RecordDict({"one": state_to_arrays(made[0]), "config": ConfigRecord(config)})
    record["two"], record["numbers"] = state_to_arrays(made[1]), MetricRecord({"x": [1.5, 2.0], "y": 3})
    before = open_descriptors()
    found = take_record(write_record(record))
    assert open_descriptors() == before
    assert list(found) == list(record)
    assert dict(found["config"]) == config
    assert dict(found["numbers"]) == {"x": [1.5, 2.0], "y": 3}
    for name, state in zip(("one", "two"), made, strict=True):
        back = arrays_to_state(found.array_records[name])
        assert list(back) == list(state)
        assert all(torch.equal(back[key], state[key]) and back[key].dtype == state[key].dtype for key in state)


def test_headers_larger_than_a_sockets_buffer_come_whole_and_with_their_descriptors() -> None:
    ours, theirs = socket.socketpair()
    memory = write_record(RecordDict())
    big = {"text": "ü" * 2_000_000}
    with ours, theirs:
        sender = threading.Thread(target=lambda: [send(ours, big, [memory, memory]), send(ours, {"next": 1})])
        sender.start()
        header, descriptors = receive(theirs)
        assert header == big
        assert len(descriptors) == 2
        assert receive(theirs) == ({"next": 1}, [])
        sender.join()
    for descriptor in (memory, *descriptors):
        os.close(descriptor)


def test_the_end_of_the_other_side_is_told() -> None:
    ours, theirs = socket.socketpair()
    ours.sendall(b"\0\0")  # half a length
    ours.close()
    with theirs, pytest.raises(EOFError):
        receive(theirs)
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs, pytest.raises(EOFError):
        receive(theirs)


class ReadAtOnce(socket.socket):
    """Its other side has read what is sent, and ended, before the call returns."""

    other: socket.socket

    def sendmsg(self, *arguments: Any) -> int:
        sent = super().sendmsg(*arguments)
        _, (given,) = receive(self.other)
        os.close(given)
        self.other.close()
        return sent


def test_what_the_other_side_has_read_was_sent_though_it_ended_at_once() -> None:
    """Else a grid would give a message that ends its worker to the next worker, too."""
    ours, theirs = socket.socketpair()
    memory = write_record(RecordDict())
    with ReadAtOnce(fileno=ours.detach()) as connection:
        connection.other = theirs
        send(connection, {"kind": "train"}, [memory])
        with pytest.raises(BrokenPipeError):
            send(connection, {"kind": "train"}, [memory])
    os.close(memory)
