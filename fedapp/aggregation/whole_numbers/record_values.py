"""What the records of a message hold: read strictly, since whoever sends them may be hostile."""

from collections.abc import Sequence
from typing import TypeVar

from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.wire.records import numbers, whole

__all__ = ["by_client", "bytes_of", "clients_of", "many_bytes"]

T = TypeVar("T")


def clients_of(value: object) -> tuple[int, ...]:
    return tuple(whole(client) for client in numbers(value))


def bytes_of(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    raise TypeError(f"expected bytes, got {type(value).__name__}")


def many_bytes(value: object) -> list[bytes]:
    if isinstance(value, list):
        return [bytes_of(item) for item in value]
    raise TypeError(f"expected a list of bytes, got {type(value).__name__}")


def by_client(clients: object, values: Sequence[T]) -> dict[int, T]:
    """Raises ProtocolError where a client is there twice."""
    keys = clients_of(clients)
    if len(set(keys)) != len(keys):
        raise ProtocolError("duplicate share", "two shares for, or of, the same client")
    return dict(zip(keys, values, strict=True))
