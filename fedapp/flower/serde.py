"""RecordDicts as bytes, for the warm worker's socket.

Needs `flwr.common.serde.recorddict_{to,from}_proto` and `flwr.proto.recorddict_pb2` (flwr 1.41, 1.42). Where these are
gone, `can_serialise` is False, and each message is handled in its own process.
"""

from typing import Any

from flwr.app import RecordDict
from google.protobuf.message import DecodeError

from fedapp.flower.names import find

__all__ = ["can_serialise", "from_bytes", "to_bytes"]

SERDE, PROTO = "flwr.common.serde", "flwr.proto.recorddict_pb2"
COLD = "messages are handled without a warm worker, seconds later each"


def can_serialise() -> bool:
    return all(
        find(module, name, otherwise=COLD) is not None
        for module, name in ((SERDE, "recorddict_to_proto"), (SERDE, "recorddict_from_proto"), (PROTO, "RecordDict"))
    )


def to_bytes(record: RecordDict) -> bytes:
    return bytes(_found(SERDE, "recorddict_to_proto")(record).SerializeToString())


def from_bytes(content: bytes) -> RecordDict:
    """Raises ValueError for bytes that are no RecordDict."""
    try:
        proto = _found(PROTO, "RecordDict").FromString(content)
    except DecodeError as error:
        raise ValueError(str(error)) from None
    record = _found(SERDE, "recorddict_from_proto")(proto)
    assert isinstance(record, RecordDict)
    return record


def _found(module: str, name: str) -> Any:
    found = find(module, name, otherwise=COLD)
    if found is None:
        raise ValueError(f"{module}.{name}: not in this version of Flower")
    return found
