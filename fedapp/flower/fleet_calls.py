"""The calls that SuperNodes make to a SuperLink over HTTP, as far as the gateway reads them.

Needs the paths of the Fleet API, `flwr.proto.{fleet,message}_pb2` and `FLEET_HTTP_PUBLIC_KEY_HEADER` (flwr 1.42). Where
a message type is gone, its replies are passed on at once, and SuperNodes poll. Other paths have no fallback: the
gateway answers what it does not know with 404.
"""

from collections.abc import Mapping

from fedapp.flower.names import find

__all__ = ["GET_FAB", "PATHS", "PULL_MESSAGES", "PULL_OBJECT", "caller", "has_message", "has_object"]

CALLS = (
    *("activate-node", "deactivate-node", "send-node-heartbeat", "pull-messages", "push-messages"),
    *("get-run", "get-fab", "push-object", "pull-object", "confirm-message-received"),
)
PATHS = frozenset(f"/v1/fleet/{call}" for call in CALLS)
GET_FAB, PULL_MESSAGES, PULL_OBJECT = "/v1/fleet/get-fab", "/v1/fleet/pull-messages", "/v1/fleet/pull-object"
LARGEST_WITHOUT_CONTENT = 16  # bytes of a PullObjectResponse that only says whether there is such an object
POLLED = "the gateway passes the SuperLink's replies on at once, and SuperNodes look for messages every 3 s"


def caller(headers: Mapping[str, str]) -> str:
    """The public key of the SuperNode that makes a call; "" where the call names none."""
    name = find(
        "flwr.supercore.constant",
        "FLEET_HTTP_PUBLIC_KEY_HEADER",
        otherwise="the gateway does not tell SuperNodes apart, and polls the SuperLink for all of them alike",
    )
    return headers.get(name, "") if name is not None else ""


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
