"""The calls that SuperNodes make to a SuperLink over HTTP, as far as the gateway reads them.

Needs the paths of the Fleet API, `flwr.proto.{fleet,message}_pb2`, the headers by which a SuperNode shows its key
(`FLEET_HTTP_PUBLIC_KEY_HEADER`, `FLEET_HTTP_SIGNATURE_HEADER`, `TIMESTAMP_HEADER` with its tolerances), and
`flwr.supercore.primitives.asymmetric` (flwr 1.42). Where a message type is gone, its replies are passed on at once, and
SuperNodes poll. Where a header is gone, the SuperLink alone checks keys. Other paths have no fallback: the gateway
answers what it does not know with 404.
"""

from base64 import b64decode
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

from fedapp.flower.names import find

__all__ = [
    "ACTIVATE",
    "GET_FAB",
    "LARGEST",
    "NOT_ADMITTED",
    "PULL_MESSAGES",
    "PULL_OBJECT",
    "caller",
    "has_message",
    "has_object",
    "is_signed",
]

SMALL = 1 << 16  # bytes: names and numbers
SMALL_CALLS = (
    *("activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages"),
    *("get-run", "get-fab", "pull-object", "confirm-message-received"),
)
# Of a message there are the names of its parts; a part has 5 MiB at most (FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE).
LARGE_CALLS = {"push-messages": 1 << 24, "push-object": 1 << 25}
CALLS = {**dict.fromkeys(SMALL_CALLS, SMALL), **LARGE_CALLS}
LARGEST: Mapping[str, int] = {f"/v1/fleet/{call}": size for call, size in CALLS.items()}  # bytes of each call, by path
ACTIVATE = "/v1/fleet/activate-node"
GET_FAB, PULL_MESSAGES, PULL_OBJECT = "/v1/fleet/get-fab", "/v1/fleet/pull-messages", "/v1/fleet/pull-object"
# What the SuperLink replies to `ACTIVATE` by a key that is not registered, so that the SuperNode says why it ends.
NOT_ADMITTED = 412, b'{"code":2004,"detail":"Failed to activate SuperNode."}'
LARGEST_WITHOUT_CONTENT = 16  # bytes of a PullObjectResponse that only says whether there is such an object
POLLED = "the gateway passes the SuperLink's replies on at once, and SuperNodes look for messages every 3 s"
UNCHECKED = "the gateway leaves it to the SuperLink to check keys, and does not tell SuperNodes apart"


def caller(headers: Mapping[str, str]) -> bytes | None:
    """The public key (PEM) that a call shows; b"" where it shows none; None where this Flower has other headers."""
    name = find("flwr.supercore.constant", "FLEET_HTTP_PUBLIC_KEY_HEADER", otherwise=UNCHECKED)
    if name is None:
        return None
    try:
        return b64decode(headers.get(name, ""), validate=True)
    except ValueError:  # no Base64
        return b""


def is_signed(headers: Mapping[str, str], key: bytes) -> bool:
    """Whether the call was signed by the owner of `key` (PEM) not long ago, as the SuperLink checks it, too."""
    names = {
        "flwr.supercore.constant": ("FLEET_HTTP_SIGNATURE_HEADER",),
        "flwr.common.constant": ("TIMESTAMP_HEADER", "TIMESTAMP_TOLERANCE", "SYSTEM_TIME_TOLERANCE"),
        "flwr.supercore.primitives.asymmetric": ("bytes_to_public_key", "verify_signature"),
    }
    found = [find(module, name, otherwise=UNCHECKED) for module, those in names.items() for name in those]
    if any(value is None for value in found):
        return True
    signature, timestamp, late, early, load, verify = cast(list[Any], found)
    try:
        said = headers.get(timestamp, "")
        age = (datetime.now(UTC) - datetime.fromisoformat(said)).total_seconds()
        given = b64decode(headers.get(signature, ""), validate=True)
        return bool(-early < age < late + early and verify(load(key), said.encode("ascii"), given))
    except (ValueError, TypeError, OverflowError):  # no time, one without a zone, no Base64, no such key
        return False


def has_message(reply: bytes) -> bool:
    """Whether the reply to `PULL_MESSAGES` holds a message."""
    kind = find("flwr.proto.fleet_pb2", "PullMessagesResponse", otherwise=POLLED)
    return kind is None or bool(kind.FromString(reply).messages_list)


def has_object(reply: bytes) -> bool:
    """Whether the reply to `PULL_OBJECT` is final: the object's content, or that there is no such object."""
    if len(reply) > LARGEST_WITHOUT_CONTENT:
        return True
    kind = find("flwr.proto.message_pb2", "PullObjectResponse", otherwise=POLLED)
    if kind is None:
        return True
    found = kind.FromString(reply)
    return bool(found.object_available) or not found.object_found
