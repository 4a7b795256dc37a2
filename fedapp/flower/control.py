"""The SuperLink's Control API, as far as SuperNodes are registered there.

Needs `flwr.supercore.control.ControlHttpClient`, `flwr.proto.control_pb2` and, to tell the SuperLink which version
calls, `RuntimeVersionHttpInterceptor` (flwr 1.42). Without the last, calls carry no version, which the SuperLink
accepts. The others have no fallback: the SuperLink does not start.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, UnregisterNodeRequest
from flwr.supercore.control import ControlHttpClient

from fedapp.flower.names import find

__all__ = ["Control", "RegisteredNode", "connect"]

UNREGISTERED, ONLINE = "unregistered", "online"  # flwr.supercore.constant.NodeStatus


@dataclass(frozen=True)
class RegisteredNode:
    """A SuperNode that the SuperLink knows. `revoked`: it was unregistered; its key is never accepted again.
    `activated`: when it last connected, as ISO 8601 has it; "" for never."""

    node_id: int
    name: str
    public_key: bytes  # PEM
    revoked: bool
    online: bool = False
    activated: str = ""


class Control:
    """Calls to one SuperLink's Control API."""

    def __init__(self, client: ControlHttpClient) -> None:
        self._client = client

    def nodes(self) -> list[RegisteredNode]:
        return [
            RegisteredNode(
                node.node_id,
                node.name,
                node.public_key,
                revoked=node.status == UNREGISTERED,
                online=node.status == ONLINE,
                activated=node.last_activated_at,
            )
            for node in self._client.ListNodes(ListNodesRequest()).nodes_info
        ]

    def register(self, name: str, public_key: bytes) -> None:
        self._client.RegisterNode(RegisterNodeRequest(public_key=public_key, name=name))

    def unregister(self, node_id: int) -> None:
        self._client.UnregisterNode(UnregisterNodeRequest(node_id=node_id))


@contextmanager
def connect(address: str, authority: bytes) -> Iterator[Control]:
    """The Control API at `address` (host:port) by TLS, with `authority` as the trusted certificate (PEM)."""
    interceptor = find(
        "flwr.supercore.interceptors.http.runtime_version",
        "RuntimeVersionHttpInterceptor",
        otherwise="calls to the SuperLink carry no version",
    )
    interceptors = [] if interceptor is None else [interceptor(component_name="flwr CLI")]
    client = ControlHttpClient.from_server_address(address, False, authority, interceptors)
    try:
        yield Control(client)
    finally:
        client.close()
