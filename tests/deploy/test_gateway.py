"""What the gateway waits for on behalf of SuperNodes, before a SuperLink that is made up. Its pauses take no time."""

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.proto.message_pb2 import Message, PullObjectResponse
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER

from fedapp.deploy.gateway import HOLD, HOLD_OBJECT, LONGEST_POLL, POLL_SHARE, SHORTEST_POLL, Gateway
from fedapp.deploy.identity import new_authority, new_server_certificate
from fedapp.flower.fleet_calls import PULL_MESSAGES, PULL_OBJECT
from fedapp.launch.local_superlink import free_port

CONTENT = b"x" * 1000
Reply = PullObjectResponse | PullMessagesResponse


@dataclass
class SuperLink:
    """Replies to every call with what `reply` gives for the number of calls before it, which are counted."""

    reply: Callable[[int], Reply] = lambda number: PullObjectResponse()
    calls: int = 0


@dataclass
class Clock:
    """Goes on by nothing but the gateway's pauses."""

    now: float = 0.0
    pauses: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def superlink() -> SuperLink:
    return SuperLink()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The gateway's: a pause moves it on, and otherwise takes no time."""
    made, real = Clock(), asyncio.wait

    async def wait(waited: Iterable[Any], *, timeout: float | None = None, **options: Any) -> Any:
        if timeout is not None:
            made.pauses.append(timeout)
            made.now += timeout
            timeout = 0
        return await real(waited, timeout=timeout, **options)

    monkeypatch.setattr(asyncio, "wait", wait)
    return made


Call = Callable[..., bytes]


@pytest.fixture
def ask(superlink: SuperLink, clock: Clock, tmp_path: Path) -> Iterator[Call]:
    """A SuperNode's call, by TLS through a gateway; what it gets."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            content = superlink.reply(superlink.calls).SerializeToString()
            superlink.calls += 1
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            """Nothing."""

    authority_key, authority = new_authority()
    key, certificate = new_server_certificate(authority_key, authority, ["127.0.0.1"], timedelta(days=1))
    names = {"ca.crt": authority, "server.key": key, "server.crt": certificate}
    for name, content in names.items():
        (tmp_path / name).write_bytes(content)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = free_port()
    gateway = Gateway(
        upstream=f"https://127.0.0.1:{server.server_port}",
        authority=tmp_path / "ca.crt",
        certificate=tmp_path / "server.crt",
        key=tmp_path / "server.key",
        signatures=tmp_path,
        host="127.0.0.1",
        port=port,
        clock=clock,
    )
    gateway.start()
    trusted = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))

    def call(path: str, key: str = "a key") -> bytes:
        headers = {FLEET_HTTP_PUBLIC_KEY_HEADER: key}
        url = f"https://127.0.0.1:{port}{path}"
        found = httpx.post(url, content=b"which", headers=headers, verify=trusted, timeout=60)
        assert found.status_code == 200
        return found.content

    try:
        yield call
    finally:
        gateway.stop()
        server.shutdown()
        server.server_close()


def there_after(calls: int) -> Callable[[int], PullObjectResponse]:
    def reply(number: int) -> PullObjectResponse:
        available = number >= calls
        content = CONTENT if available else b""
        return PullObjectResponse(object_found=True, object_available=available, object_content=content)

    return reply


def part(ask: Call) -> PullObjectResponse:
    return PullObjectResponse.FromString(ask(PULL_OBJECT))


def test_a_part_that_the_server_is_uploading_is_waited_for(superlink: SuperLink, ask: Call, clock: Clock) -> None:
    superlink.reply = there_after(3)
    assert part(ask).object_content == CONTENT
    assert superlink.calls == 4
    assert clock.pauses == 3 * [SHORTEST_POLL]


def test_what_is_there_or_unknown_is_passed_on_at_once(superlink: SuperLink, ask: Call, clock: Clock) -> None:
    superlink.reply = there_after(0)
    assert part(ask).object_content == CONTENT
    superlink.reply = lambda number: PullObjectResponse(object_found=False, object_available=False)
    assert not part(ask).object_found
    superlink.reply = lambda number: PullObjectResponse(object_found=True, object_available=True, object_content=b"1")
    assert part(ask).object_content == b"1"
    assert superlink.calls == 3
    assert not clock.pauses


def test_a_part_is_not_waited_for_without_end(superlink: SuperLink, ask: Call, clock: Clock) -> None:
    superlink.reply = there_after(10**9)
    found = part(ask)
    assert (found.object_found, found.object_available) == (True, False)
    assert HOLD_OBJECT <= clock.now < HOLD_OBJECT + 2 * SHORTEST_POLL
    assert superlink.calls == len(clock.pauses) > 2


def test_a_call_for_messages_is_held_until_there_is_one(superlink: SuperLink, ask: Call, clock: Clock) -> None:
    one = PullMessagesResponse(messages_list=[Message()])
    superlink.reply = lambda number: one if number == 40 else PullMessagesResponse()
    assert PullMessagesResponse.FromString(ask(PULL_MESSAGES)) == one
    assert superlink.calls == 41
    # Looks become rarer with the time since the last message, and are never late by more than their share of it.
    assert clock.pauses == sorted(clock.pauses)
    assert (clock.pauses[0], len(clock.pauses)) == (SHORTEST_POLL, 40)
    assert clock.pauses[-1] == pytest.approx(POLL_SHARE * (clock.now - clock.pauses[-1]))


def test_without_a_message_the_call_ends_before_its_supernode_gives_up(
    superlink: SuperLink, ask: Call, clock: Clock
) -> None:
    superlink.reply = lambda number: PullMessagesResponse()
    assert not PullMessagesResponse.FromString(ask(PULL_MESSAGES)).messages_list
    assert HOLD <= clock.now < HOLD + LONGEST_POLL


def test_each_supernode_is_polled_for_at_its_own_pace(superlink: SuperLink, ask: Call, clock: Clock) -> None:
    """One that has waited long is looked for seldom; another, which has just come, often."""
    superlink.reply = lambda number: PullMessagesResponse()
    ask(PULL_MESSAGES, "idle")
    ask(PULL_MESSAGES, "idle")
    assert clock.pauses[-1] > 10 * SHORTEST_POLL
    before = len(clock.pauses)
    ask(PULL_MESSAGES, "new")
    assert clock.pauses[before] == SHORTEST_POLL
