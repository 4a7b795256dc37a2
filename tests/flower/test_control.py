"""SuperNodes are registered by Flower's own client of its Control API."""

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListNodesResponse,
    RegisterNodeRequest,
    RegisterNodeResponse,
    UnregisterNodeRequest,
    UnregisterNodeResponse,
)
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.constant import NodeStatus
from flwr.supercore.control import ControlHttpClient

from fedapp.flower.control import UNREGISTERED, Control, RegisteredNode, connect

INTERCEPTOR = "flwr.supercore.interceptors.http.runtime_version.RuntimeVersionHttpInterceptor"


def test_flower_has_the_client_its_calls_and_the_status(expect_names: Callable[..., None]) -> None:
    expect_names("control.py", *INTERCEPTOR.rsplit(".", 1))
    for call in ("ListNodes", "RegisterNode", "UnregisterNode", "close"):
        assert hasattr(ControlHttpClient, call), f"ControlHttpClient has no {call}"
    parameters = list(inspect.signature(ControlHttpClient.from_server_address).parameters)
    assert parameters[:4] == ["server_address", "insecure", "root_certificates", "interceptors"]
    assert NodeStatus.UNREGISTERED == UNREGISTERED, "the status of a revoked SuperNode has another name"


class SuperLink:
    """Replies as a SuperLink with two SuperNodes does, and notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def ListNodes(self, request: ListNodesRequest) -> ListNodesResponse:  # noqa: N802 (Flower's name)
        there = NodeInfo(node_id=1, name="site-A", public_key=b"A", status="online")
        return ListNodesResponse(nodes_info=[there, NodeInfo(node_id=2, public_key=b"B", status=UNREGISTERED)])

    def RegisterNode(self, request: RegisterNodeRequest) -> RegisterNodeResponse:  # noqa: N802
        self.asked.append(request)
        return RegisterNodeResponse()

    def UnregisterNode(self, request: UnregisterNodeRequest) -> UnregisterNodeResponse:  # noqa: N802
        self.asked.append(request)
        return UnregisterNodeResponse()


def test_calls_say_what_they_mean() -> None:
    superlink = SuperLink()
    control = Control(cast(ControlHttpClient, superlink))
    assert control.nodes() == [RegisteredNode(1, "site-A", b"A", False, online=True), RegisteredNode(2, "", b"B", True)]
    control.register("site-C", b"C")
    control.unregister(7)
    assert superlink.asked == [RegisterNodeRequest(name="site-C", public_key=b"C"), UnregisterNodeRequest(node_id=7)]


@pytest.mark.parametrize("gone", [False, True])
def test_without_its_interceptor_calls_are_made_all_the_same(
    gone: bool, monkeypatch: pytest.MonkeyPatch, warned: Callable[[], list[str]]
) -> None:
    made: list[tuple[Any, ...]] = []
    closed: list[bool] = []

    def from_server_address(*arguments: Any) -> Any:
        made.append(arguments)
        return SimpleNamespace(close=lambda: closed.append(True))

    monkeypatch.setattr(ControlHttpClient, "from_server_address", from_server_address)
    if gone:
        monkeypatch.delattr(INTERCEPTOR)
    for _ in range(2):
        with connect("127.0.0.1:1", b"authority"):
            assert len(made) == len(closed) + 1
    assert [arguments[:3] for arguments in made] == 2 * [("127.0.0.1:1", False, b"authority")]
    assert [len(arguments[3]) for arguments in made] == (2 * [0] if gone else 2 * [1])
    assert len(warned()) == int(gone)
