"""What the gateway waits for on behalf of SuperNodes, before a SuperLink that is made up."""

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from flwr.proto.message_pb2 import PullObjectResponse

from fedapp.deploy import gateway as gateway_module
from fedapp.deploy.gateway import PULL_OBJECT, Gateway
from fedapp.deploy.identity import new_authority, new_server_certificate
from fedapp.launch.local_superlink import free_port

CONTENT = b"x" * 1000


@dataclass
class SuperLink:
    """Answers every call with what `answer` gives for the number of calls before it."""

    answer: Callable[[int], PullObjectResponse] = lambda number: PullObjectResponse()
    calls: list[float] = field(default_factory=list)


@pytest.fixture
def superlink() -> SuperLink:
    return SuperLink()


@pytest.fixture
def ask(superlink: SuperLink, tmp_path: Path) -> Iterator[Callable[[], PullObjectResponse]]:
    """A SuperNode's call for a part of a message, by TLS through a gateway."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            superlink.calls.append(time.monotonic())
            content = superlink.answer(len(superlink.calls) - 1).SerializeToString()
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
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
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
    )
    gateway.start()
    trusted = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))

    def call() -> PullObjectResponse:
        found = httpx.post(f"https://127.0.0.1:{port}{PULL_OBJECT}", content=b"which", verify=trusted, timeout=30)
        assert found.status_code == 200
        return PullObjectResponse.FromString(found.content)

    try:
        yield call
    finally:
        gateway.stop()
        server.shutdown()
        server.server_close()


def there_after(calls: int) -> Callable[[int], PullObjectResponse]:
    def answer(number: int) -> PullObjectResponse:
        available = number >= calls
        content = CONTENT if available else b""
        return PullObjectResponse(object_found=True, object_available=available, object_content=content)

    return answer


def test_a_part_that_the_server_is_uploading_is_waited_for(
    superlink: SuperLink, ask: Callable[[], PullObjectResponse]
) -> None:
    superlink.answer = there_after(3)
    assert ask().object_content == CONTENT
    assert len(superlink.calls) == 4
    assert superlink.calls[-1] - superlink.calls[0] >= 3 * gateway_module.SHORTEST_POLL


def test_what_is_there_or_unknown_is_answered_at_once(
    superlink: SuperLink, ask: Callable[[], PullObjectResponse]
) -> None:
    superlink.answer = there_after(0)
    assert ask().object_content == CONTENT
    superlink.answer = lambda number: PullObjectResponse(object_found=False, object_available=False)
    assert not ask().object_found
    superlink.answer = lambda number: PullObjectResponse(object_found=True, object_available=True, object_content=b"1")
    assert ask().object_content == b"1"
    assert len(superlink.calls) == 3


def test_it_is_not_waited_for_without_end(
    superlink: SuperLink, ask: Callable[[], PullObjectResponse], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_module, "HOLD_OBJECT", 0.3)
    superlink.answer = there_after(10**9)
    begin = time.monotonic()
    found = ask()
    assert (found.object_found, found.object_available) == (True, False)
    assert 0.3 <= time.monotonic() - begin < 5
    assert len(superlink.calls) > 2
