"""What passes between the processes of a run: a line of JSON, and file descriptors of anonymous memory."""

import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any, cast

from flwr.app import Array, ArrayRecord, RecordDict

from fedapp.data.shared_examples import anonymous_memory
from fedapp.flower.serde import from_bytes, to_bytes

__all__ = ["receive", "send", "take_parts", "take_record", "to_memory", "write_record"]

LENGTH, SIZE = struct.Struct("!I"), struct.Struct("!Q")
MOST_DESCRIPTORS = 4
NOTHING = b"\0"  # in place of an array's data, which Flower does not take empty


def send(connection: socket.socket, header: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Raises OSError where the other side has gone before all was sent."""
    text = json.dumps(header).encode()
    packet = LENGTH.pack(len(text)) + text
    sent = socket.send_fds(connection, [packet], descriptors) if descriptors else 0
    if sent < len(packet):  # sending nothing fails, too, once the other side has read all and ended
        connection.sendall(packet[sent:])


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """A header, and descriptors that are the caller's to close. Raises EOFError where the other side has gone."""
    try:
        start, descriptors, _, _ = socket.recv_fds(connection, LENGTH.size, MOST_DESCRIPTORS)
        start += _exactly(connection, LENGTH.size - len(start)) if start else b""
        if not start:
            raise EOFError
        text = _exactly(connection, LENGTH.unpack(start)[0])
    except ConnectionError as error:
        raise EOFError from error
    return cast(dict[str, Any], json.loads(text)), list(descriptors)


def _exactly(connection: socket.socket, length: int) -> bytes:
    found = bytearray()
    while len(found) < length:
        part = connection.recv(length - len(found))
        if not part:
            raise EOFError
        found += part
    return bytes(found)


def to_memory(parts: Sequence[bytes | memoryview]) -> int:
    """A descriptor of anonymous memory that holds `parts`; it is the caller's to close."""
    descriptor = anonymous_memory()
    try:
        with open(descriptor, "wb", closefd=False) as memory:
            memory.write(SIZE.pack(len(parts)))
            memory.write(b"".join(SIZE.pack(len(part)) for part in parts))
            for part in parts:
                memory.write(part)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def take_parts(descriptor: int) -> list[bytes]:
    """The parts in anonymous memory, copied out of it; closes `descriptor`."""
    with open(descriptor, "rb") as memory:
        memory.seek(0)
        count = SIZE.unpack(memory.read(SIZE.size))[0]
        sizes = [SIZE.unpack(memory.read(SIZE.size))[0] for _ in range(count)]
        return [memory.read(size) for size in sizes]


def write_record(record: RecordDict) -> int:
    """A descriptor of anonymous memory that holds a record. Arrays go beside Flower's protocol buffer, which would copy
    each value three times."""
    hollow, data = RecordDict(), list[bytes]()
    for name, item in record.items():
        if isinstance(item, ArrayRecord):
            data += [array.data for array in item.values()]
            item = ArrayRecord({key: _with_data(array, NOTHING) for key, array in item.items()})
        hollow[name] = item
    return to_memory([to_bytes(hollow), *data])


def take_record(descriptor: int) -> RecordDict:
    """The record that `write_record` has written; closes `descriptor`."""
    content, *data = take_parts(descriptor)
    record, arrays = from_bytes(content), iter(data)
    for item in record.values():
        if isinstance(item, ArrayRecord):
            for array in item.values():
                array.data = next(arrays)
    return record


def _with_data(array: Array, data: bytes) -> Array:
    return Array(dtype=array.dtype, shape=tuple(array.shape), stype=array.stype, data=data)
