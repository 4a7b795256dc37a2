"""What strangers, slow callers and large calls cost the gateway: little, and nobody else anything."""

import asyncio
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.proto.message_pb2 import Message
from gateways import Caller, Front, SuperLink, besieged, gateway_before, head
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedapp.common.errors import FederationError
from fedapp.deploy import bodies, connections
from fedapp.deploy.bodies import Answer, CallerGoneError, read_body
from fedapp.deploy.connections import MOST_OF_A_KEY, MOST_STRANGERS, Connections, open_doors
from fedapp.flower.fleet_calls import ACTIVATE, LARGEST, PULL_MESSAGES, PULL_OBJECT

PUSH = "/v1/fleet/push-object"
CONTENT = PullMessagesResponse(messages_list=[Message()] * 20).SerializeToString()  # final for whatever is asked


@pytest.fixture
def superlink() -> SuperLink:
    return SuperLink(lambda number: CONTENT)


@pytest.fixture
def front(superlink: SuperLink, tmp_path: Path) -> Iterator[Front]:
    with gateway_before(superlink, tmp_path) as made:
        yield made


def connect(front: Front) -> socket.socket:
    plain = socket.create_connection(("127.0.0.1", front.port), timeout=20)
    return front.trusted.wrap_socket(plain, server_hostname="127.0.0.1")


def rest(connection: socket.socket) -> bytes:
    """All that still comes, until the connection ends."""
    found = b""
    try:
        while part := connection.recv(1 << 16):
            found += part
    except (ConnectionError, ssl.SSLError):  # without TLS's farewell
        pass
    return found


# --- the key first ------------------------------------------------------------------------------------------------


def strangers() -> dict[str, dict[str, str]]:
    """Headers that show no admitted key: SITE stands for the admitted one's own."""
    other = Caller().headers()
    return {
        "no key": {},
        "a key that is not admitted": other,
        "another's signature": {"flwr-signature": other["flwr-signature"]},
        "a time that was not signed": {"flwr-timestamp": other["flwr-timestamp"]},
        "no signature": {"flwr-signature": ""},
        "no Base64": {"flwr-signature": "%%%"},
        "no time": {"flwr-timestamp": "yesterday"},
        "a time without a zone": {"flwr-timestamp": "2026-11-29T12:00:00"},
    }


@pytest.mark.parametrize("kind", strangers())
def test_who_shows_no_admitted_key_is_refused_before_the_body(kind: str, front: Front, superlink: SuperLink) -> None:
    given = strangers()[kind]
    headers = given if len(given) != 1 else {**front.site.headers(), **given}
    with connect(front) as connection:
        connection.sendall(head(PUSH, headers, 1 << 30))  # and no byte of it
        assert rest(connection).startswith(b"HTTP/1.1 401 ")
    assert superlink.calls == 0


def test_what_is_refused_of_a_site_is_logged_once(front: Front, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        assert front.post(PULL_MESSAGES, content=bytes(1 << 17)).status_code == 413
    assert caplog.text.count("pull-messages is refused: larger than 65536 bytes") == 1


def test_a_time_long_ago_is_refused(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was signed once is no key for ever; a little ago is."""
    from datetime import UTC, datetime, timedelta

    for seconds, status in ((0, 200), (200, 200), (400, 401), (-60, 401)):
        signed = datetime.now(UTC) - timedelta(seconds=seconds)
        monkeypatch.setattr("flwr.supernode.node_auth_http_interceptor.now", lambda: signed)  # noqa: B023
        assert front.post(PUSH).status_code == status, seconds


def test_flowers_supernode_is_told_why_it_cannot_be_activated(front: Front, superlink: SuperLink) -> None:
    """With the SuperLink's own words, from which its operator is told what to do."""
    from flwr.supercore.error import ApiErrorCode, FlowerError
    from flwr.supercore.error.catalog import API_ERROR_MAP

    found = front.post(ACTIVATE, Caller())
    spec = API_ERROR_MAP[ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED]
    error = FlowerError.from_json(found.text)
    assert found.status_code == spec.http_status_code
    assert error is not None
    assert (error.code, error.message) == (ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED, spec.public_message)
    assert superlink.calls == 0


def test_a_key_counts_as_soon_as_it_is_admitted_and_no_longer(front: Front) -> None:
    late = Caller()
    assert front.post(PUSH, late).status_code == 401
    front.admitted.add(late.public)
    assert front.post(PUSH, late).status_code == 200
    front.admitted.clear()
    assert front.post(PUSH, late).status_code == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", PUSH),
        ("POST", "/v1/control/start-run"),
        ("POST", "/v1/fleet/register-node"),
        ("POST", "/"),
        ("PUT", PUSH),
    ],
)
def test_other_calls_are_not_passed_on(front: Front, superlink: SuperLink, method: str, path: str) -> None:
    url, headers = f"https://127.0.0.1:{front.port}{path}", front.site.headers()
    assert httpx.request(method, url, headers=headers, verify=front.trusted).status_code == 404
    assert superlink.calls == 0


# --- sizes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", LARGEST)
def test_each_kind_of_call_has_its_size(front: Front, superlink: SuperLink, path: str) -> None:
    """No model's part fits into a call that only asks."""
    if path not in ("/v1/fleet/push-messages", PUSH):
        assert front.post(path, content=bytes(1 << 16)).status_code == 200
        assert front.post(path, content=bytes((1 << 16) + 1)).status_code == 413
        assert superlink.calls == 1
    else:
        assert front.post(path, content=bytes(6 << 20)).status_code == 200


def receiving(*parts: bytes, pause: float = 0.0, ends: bool = True) -> Any:
    left = list(parts)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(pause)
        if not left:
            if not ends:
                return {"type": "http.disconnect"}
            await asyncio.sleep(60)
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left) or not ends}

    return receive


def test_a_body_is_read_up_to_its_size_and_no_further() -> None:
    assert asyncio.run(read_body(receiving(b"ab", b"c"), 3)) == b"abc"
    assert asyncio.run(read_body(receiving(b"ab", b"cd", b"never read"), 3)) == Answer(413, headers=(bodies.CLOSE,))
    with pytest.raises(CallerGoneError):
        asyncio.run(read_body(receiving(b"a", ends=False), 3))


# --- slow callers -------------------------------------------------------------------------------------------------


def test_a_body_that_keeps_its_pace_may_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "GRACE", 0.1)
    monkeypatch.setattr(bodies, "SLOWEST", 10)
    assert asyncio.run(read_body(receiving(*[b"xx"] * 6, pause=0.05), 100)) == b"xx" * 6
    monkeypatch.setattr(bodies, "SLOWEST", 1 << 20)
    found = asyncio.run(read_body(receiving(*[b"xx"] * 6, pause=0.05), 100))
    assert found == Answer(408, headers=(bodies.CLOSE,))


def test_who_stops_sending_is_refused(front: Front, superlink: SuperLink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "GRACE", 0.2)
    with connect(front) as connection:
        connection.sendall(head(PUSH, front.site.headers(), 1 << 20) + b"x")
        assert rest(connection).startswith(b"HTTP/1.1 408 ")
    assert superlink.calls == 0


def test_who_does_not_take_its_reply_is_ended(
    front: Front, superlink: SuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "GRACE", 0.3)
    monkeypatch.setattr(bodies, "SLOWEST", 1 << 40)
    superlink.reply = lambda number: bytes(20 << 20)
    with connect(front) as connection:
        connection.sendall(head(PUSH, front.site.headers(), 0))
        deadline = time.monotonic() + 10
        while front.gateway.connections.count() != (0, 0) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert front.gateway.connections.count() == (0, 0)
        assert len(rest(connection)) < 20 << 20


def test_who_takes_it_gets_all_of_it(front: Front, superlink: SuperLink) -> None:
    superlink.reply = lambda number: bytes(range(256)) * 20_000
    assert front.post(PUSH).content == bytes(range(256)) * 20_000


# --- connections --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [None, b"", b"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: x\r\n"])
def test_a_stranger_who_does_nothing_is_ended(
    superlink: SuperLink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes | None
) -> None:
    """Before TLS, after it, or in the head of a call."""
    monkeypatch.setattr(connections, "PATIENCE", 0.3)
    with gateway_before(superlink, tmp_path) as front:
        connection = socket.create_connection(("127.0.0.1", front.port), timeout=20)
        if sent is not None:
            connection = front.trusted.wrap_socket(connection, server_hostname="127.0.0.1")
            connection.sendall(sent)
        with connection:
            assert rest(connection) == b""
        assert front.gateway.connections.count()[0] == 0


def test_the_head_of_a_call_is_bounded(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long before its sender has no more time."""
    monkeypatch.setattr(connections, "PATIENCE", 60.0)
    with connect(front) as connection:
        with suppress(OSError):  # it is refused while it comes
            connection.sendall(b"POST / HTTP/1.1\r\nx: " + b"x" * (1 << 17))
        assert not rest(connection).startswith(b"HTTP/1.1 2")


class Plug:
    """A connection, as far as the bounds look at it."""

    def __init__(self) -> None:
        self.open = True

    def fileno(self) -> int:
        return 7 if self.open else -1

    def shutdown(self, how: int) -> None:
        self.open = False


def test_of_too_many_strangers_the_busiest_address_loses_its_oldest() -> None:
    async def crowd() -> None:
        made, honest = Connections(), Plug()
        made.came(("10.0.0.1", 1), honest)  # type: ignore[arg-type]
        hostile = [Plug() for _ in range(3 * MOST_STRANGERS)]
        for port, plug in enumerate(hostile):
            made.came(("10.0.0.2", port), plug)  # type: ignore[arg-type]
        assert honest.open
        assert [plug.open for plug in hostile] == [False] * (2 * MOST_STRANGERS + 1) + [True] * (MOST_STRANGERS - 1)
        assert made.count() == (MOST_STRANGERS, 0)

    asyncio.run(crowd())


def test_a_key_has_a_few_connections_and_loses_its_own_oldest() -> None:
    async def crowd() -> None:
        made, other, plugs = Connections(), Plug(), [Plug() for _ in range(MOST_OF_A_KEY + 3)]
        made.came(("10.0.0.1", 1), other)  # type: ignore[arg-type]
        made.shows(("10.0.0.1", 1), b"other")
        for port, plug in enumerate(plugs):
            made.came(("10.0.0.2", port), plug)  # type: ignore[arg-type]
            made.shows(("10.0.0.2", port), b"key")
        assert other.open
        assert [plug.open for plug in plugs] == [False] * 3 + [True] * MOST_OF_A_KEY
        assert made.count() == (0, MOST_OF_A_KEY + 1)
        made.end(("10.0.0.2", len(plugs) - 1))
        assert not plugs[-1].open

    asyncio.run(crowd())


def test_200_idle_and_20_slow_connections_cost_the_others_nothing(front: Front, superlink: SuperLink) -> None:
    """Half of the slow ones have another site's key. Meanwhile a SuperNode makes the calls of a round, ten times."""
    hostile = Caller()
    front.admitted.add(hostile.public)
    with besieged(front.port, front.trusted, hostile, idle=200, slow=20):
        strangers_there, known = front.gateway.connections.count()
        assert 100 < strangers_there <= MOST_STRANGERS
        assert known <= MOST_OF_A_KEY
        for _ in range(10):
            for path, content in ((PULL_MESSAGES, b"x"), (PULL_OBJECT, b"x"), (PUSH, bytes(1 << 20))):
                assert front.post(path, content=content).status_code == 200
    assert len(superlink.bodies) == 30


def test_a_port_that_is_taken_is_named(front: Front) -> None:
    with pytest.raises(FederationError, match=f"127.0.0.1:{front.port}: cannot listen there"):
        open_doors("127.0.0.1", front.port, Connections())


@pytest.mark.parametrize("name", ["x-forwarded-for", "forwarded"])
def test_nobody_says_where_another_call_comes_from(front: Front, name: str) -> None:
    with httpx.Client(verify=front.trusted) as client:
        headers = {**front.site.headers(), name: "10.9.9.9"}
        assert client.post(f"https://127.0.0.1:{front.port}{PUSH}", headers=headers).status_code == 200
        assert front.gateway.connections.count() == (0, 1)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(
    method=st.sampled_from([b"POST", b"GET", b"PUT", b"CONNECT", b"\xff"]),
    path=st.sampled_from([*(path.encode() for path in LARGEST), b"*", b"http://x/y", b"/%2e%2e/v1", b"//"])
    | st.binary(max_size=20),
    name=st.sampled_from([b"content-length", b"transfer-encoding", b"expect", b"connection", b"flwr-public-key", b"x"]),
    value=st.sampled_from([b"-1", b"9" * 30, b"chunked", b"100-continue", b"upgrade", b"\xe9", b""])
    | st.binary(max_size=20),
    body=st.sampled_from([b"", b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"x" * 9000]),
)
def test_whatever_strangers_send_is_refused_and_reaches_no_superlink(
    front: Front,
    superlink: SuperLink,
    method: bytes,
    path: bytes,
    name: bytes,
    value: bytes,
    body: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "PATIENCE", 0.3)  # for the head of a call that does not end
    call = b"%b %b HTTP/1.1\r\nhost: x\r\n%b: %b\r\nconnection: close\r\n\r\n" % (method, path, name, value)
    with connect(front) as connection:
        with suppress(OSError):
            connection.sendall(call + body)
        said = rest(connection)
    assert not said or int(said.split()[1]) in (400, 401, 404, 412)
    assert superlink.calls == 0


# --- what is logged -----------------------------------------------------------------------------------------------


class Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def heard(front: Front) -> Iterator[list[str]]:
    """What uvicorn and asyncio would print, were they allowed to."""
    handler, loggers = Heard(), [logging.getLogger(name) for name in ("uvicorn.error", "asyncio", "flwr")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.ERROR)
    yield handler.lines
    for logger, level in zip(loggers, levels, strict=True):
        logger.removeHandler(handler)
        logger.setLevel(level)


def test_a_call_that_is_held_when_the_gateway_ends_is_no_fault(
    front: Front, superlink: SuperLink, heard: list[str]
) -> None:
    """Its SuperNode tries again, as on any 503; nothing is printed."""
    done = threading.Event()
    superlink.reply = lambda number: str(done.wait(20)).encode()
    found: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: found.append(front.post(PULL_MESSAGES)))
    thread.start()
    deadline = time.monotonic() + 10
    while not superlink.bodies and time.monotonic() < deadline:
        time.sleep(0.02)
    front.gateway.stop()
    done.set()
    thread.join(timeout=10)
    assert [reply.status_code for reply in found] == [503]
    assert heard == []


def test_noise_is_answered_and_fills_no_log(front: Front, heard: list[str]) -> None:
    for noise in (b"\x00" * 100, b"GET\r\n\r\n", b"POST /x HTTP/9.9\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
        with connect(front) as connection:
            connection.sendall(noise)
            connection.shutdown(socket.SHUT_WR)
            rest(connection)
        with socket.create_connection(("127.0.0.1", front.port), timeout=20) as plain:
            plain.sendall(noise)
            plain.shutdown(socket.SHUT_WR)
            rest(plain)
    assert front.post(PUSH).status_code == 200
    assert heard == []
