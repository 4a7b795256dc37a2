"""What the gateway reads of SuperNodes' calls, as Flower's SuperNode makes them and its SuperLink replies."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.proto.message_pb2 import Message, PullObjectResponse
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fedapp.flower.fleet_calls import LARGEST, LARGEST_WITHOUT_CONTENT, caller, has_message, has_object, is_signed

OF_UNREGISTERED = {"/v1/fleet/register-node", "/v1/fleet/unregister-node"}  # by which anybody could let themselves in


def test_flower_has_the_names(expect_names: Callable[..., None]) -> None:
    expect_names("fleet_calls.py", "flwr.supercore.constant", "FLEET_HTTP_PUBLIC_KEY_HEADER")
    expect_names("fleet_calls.py", "flwr.supercore.constant", "FLEET_HTTP_SIGNATURE_HEADER")
    expect_names("fleet_calls.py", "flwr.common.constant", "TIMESTAMP_HEADER")
    expect_names("fleet_calls.py", "flwr.common.constant", "TIMESTAMP_TOLERANCE")
    expect_names("fleet_calls.py", "flwr.common.constant", "SYSTEM_TIME_TOLERANCE")
    expect_names("fleet_calls.py", "flwr.supercore.primitives.asymmetric", "bytes_to_public_key")
    expect_names("fleet_calls.py", "flwr.supercore.primitives.asymmetric", "verify_signature")
    expect_names("fleet_calls.py", "flwr.proto.fleet_pb2", "PullMessagesResponse")
    expect_names("fleet_calls.py", "flwr.proto.message_pb2", "PullObjectResponse")


def test_every_call_of_a_registered_supernode_is_passed_on_and_no_other() -> None:
    flowers = {path for _, path in PROTOBUF_REQUEST_TYPES if path.startswith("/v1/fleet/")}
    assert flowers - OF_UNREGISTERED == LARGEST.keys(), (
        "Flower's Fleet API has other calls: see CALLS in flower/fleet_calls.py"
    )


def headers_of(key: ec.EllipticCurvePrivateKey) -> httpx.Headers:
    """As Flower's own interceptor adds them."""
    request = httpx.Request("POST", "https://superlink")
    interceptor = NodeAuthHttpInterceptor(key, key.public_key())
    interceptor.intercept(cast(Any, SimpleNamespace(request=request)), lambda context: httpx.Response(200))
    return request.headers


def test_a_caller_is_known_by_the_key_that_its_supernode_shows_and_signs_by() -> None:
    first, second = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    assert caller(headers_of(first)) == public_key_to_bytes(first.public_key())
    assert is_signed(headers_of(first), public_key_to_bytes(first.public_key()))
    assert not is_signed(headers_of(first), public_key_to_bytes(second.public_key()))
    for other in ({}, {"flwr-public-key": "%"}, {"flwr-public-key": "é"}):
        assert caller(other) == b""


def test_a_part_of_flowers_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the names and sizes that go along."""
    from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE

    assert LARGEST["/v1/fleet/push-object"] > 4 * FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE


def test_whether_there_is_a_message() -> None:
    assert not has_message(PullMessagesResponse().SerializeToString())
    assert has_message(PullMessagesResponse(messages_list=[Message()]).SerializeToString())


@pytest.mark.parametrize(("found", "available", "content"), [(True, True, b"1"), (False, False, b"")])
def test_an_object_that_is_there_or_unknown_is_not_waited_for(found: bool, available: bool, content: bytes) -> None:
    reply = PullObjectResponse(object_found=found, object_available=available, object_content=content)
    assert has_object(reply.SerializeToString())


def test_an_object_that_is_still_being_uploaded_is_waited_for_by_its_short_reply() -> None:
    reply = PullObjectResponse(object_found=True, object_available=False).SerializeToString()
    assert not has_object(reply)
    assert len(reply) <= LARGEST_WITHOUT_CONTENT


def test_without_a_message_type_its_replies_are_passed_on(
    monkeypatch: pytest.MonkeyPatch, warned: Callable[[], list[str]]
) -> None:
    monkeypatch.delattr("flwr.proto.fleet_pb2.PullMessagesResponse")
    assert has_message(b"")
    assert has_message(b"")
    assert len(warned()) == 1
    assert "PullMessagesResponse" in warned()[0]
    monkeypatch.delattr("flwr.proto.message_pb2.PullObjectResponse")
    assert has_object(b"")
    assert has_object(b"")
    assert len(warned()) == 2
    assert "PullObjectResponse" in warned()[1]


@pytest.mark.parametrize(
    "name",
    [
        *("flwr.common.constant.TIMESTAMP_HEADER", "flwr.common.constant.TIMESTAMP_TOLERANCE"),
        *("flwr.supercore.constant.FLEET_HTTP_SIGNATURE_HEADER",),
        *(
            f"flwr.supercore.primitives.asymmetric.{function}"
            for function in ("bytes_to_public_key", "verify_signature")
        ),
    ],
)
def test_without_what_a_signature_needs_the_superlink_alone_checks_it(
    name: str, monkeypatch: pytest.MonkeyPatch, warned: Callable[[], list[str]]
) -> None:
    monkeypatch.delattr(name)
    assert is_signed({}, b"key")
    assert len(warned()) == 1


def test_without_the_header_nobody_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, warned: Callable[[], list[str]]
) -> None:
    monkeypatch.delattr("flwr.supercore.constant.FLEET_HTTP_PUBLIC_KEY_HEADER")
    assert [caller({"flwr-public-key": key}) for key in ("a", "b")] == [None, None]
    assert len(warned()) == 1
