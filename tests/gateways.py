"""A gateway before a SuperLink that is made up, and SuperNodes that call it by TLS as Flower's do."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fedapp.deploy.gateway import Gateway
from fedapp.deploy.identity import new_authority, new_server_certificate
from fedapp.launch.local_superlink import free_port

__all__ = ["Caller", "Front", "SuperLink", "besieged", "gateway_before", "head"]


class Caller:
    """A SuperNode's key, and the headers by which Flower's SuperNode shows it now."""

    def __init__(self) -> None:
        self.private = ec.generate_private_key(ec.SECP384R1())
        self.public = public_key_to_bytes(self.private.public_key())

    def headers(self) -> dict[str, str]:
        request = httpx.Request("POST", "https://superlink")
        interceptor = NodeAuthHttpInterceptor(self.private, self.private.public_key())
        interceptor.intercept(cast(Any, SimpleNamespace(request=request)), lambda context: httpx.Response(200))
        return {name: value for name, value in request.headers.items() if name.startswith("flwr") or "time" in name}


@dataclass
class SuperLink:
    """Replies to every call with what `reply` gives for the number of calls before it, which are counted."""

    reply: Callable[[int], bytes] = lambda number: b""
    calls: int = 0
    bodies: list[bytes] = field(default_factory=list)


@dataclass
class Front:
    """The port that SuperNodes see. Keys in `admitted` count."""

    gateway: Gateway
    port: int
    trusted: ssl.SSLContext
    admitted: set[bytes]
    site: Caller

    def post(
        self, path: str, caller: Caller | None = None, content: bytes = b"which", **headers: str
    ) -> httpx.Response:
        """A call of `caller`, the admitted site unless another is given."""
        given = {**(caller or self.site).headers(), **headers}
        url = f"https://127.0.0.1:{self.port}{path}"
        return httpx.post(url, content=content, headers=given, verify=self.trusted, timeout=60)


@contextmanager
def gateway_before(superlink: SuperLink, place: Path, clock: Callable[[], float] = time.monotonic) -> Iterator[Front]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            superlink.bodies.append(self.rfile.read(int(self.headers["content-length"])))
            content = superlink.reply(superlink.calls)
            superlink.calls += 1
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            """Nothing."""

    authority_key, authority = new_authority()
    key, certificate = new_server_certificate(authority_key, authority, ["127.0.0.1"], timedelta(days=1))
    for name, content in {"ca.crt": authority, "server.key": key, "server.crt": certificate}.items():
        (place / name).write_bytes(content)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / "server.crt", place / "server.key")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    port, site = free_port(), Caller()
    admitted = {site.public}
    gateway = Gateway(
        upstream=f"https://127.0.0.1:{server.server_port}",
        authority=place / "ca.crt",
        certificate=place / "server.crt",
        key=place / "server.key",
        signatures=place,
        host="127.0.0.1",
        port=port,
        admitted=lambda: admitted,
        clock=clock,
    )
    gateway.start()
    try:
        yield Front(gateway, port, ssl.create_default_context(cafile=str(place / "ca.crt")), admitted, site)
    finally:
        gateway.stop()
        server.shutdown()
        server.server_close()


def head(path: str, headers: dict[str, str], length: int) -> bytes:
    """Of a call whose body has so many bytes."""
    lines = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", f"content-length: {length}"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode()


@contextmanager
def besieged(
    port: int, trusted: ssl.SSLContext, caller: Caller, *, idle: int, slow: int
) -> Iterator[list[socket.socket]]:
    """So many connections at once that do nothing, before TLS or after it or in mid-head, and so many that go on byte
    by byte: half of them with the head of a call, half, with `caller`'s key, with a body."""
    with ExitStack() as stack:

        def connect(tls: bool) -> socket.socket:
            plain = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            with suppress(OSError):  # who came before may have filled the place
                return stack.enter_context(trusted.wrap_socket(plain, server_hostname="127.0.0.1")) if tls else plain
            return plain

        opened = [connect(tls=number % 2 == 0) for number in range(idle)]
        for connection in opened[::4]:
            with suppress(OSError):
                connection.sendall(b"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: x\r\n")
        creeping = [connect(tls=True) for _ in range(slow)]
        for number, connection in enumerate(creeping):
            with suppress(OSError):
                path = "/v1/fleet/push-object"
                connection.sendall(head(path, caller.headers(), 1 << 20) if number % 2 else b"POST /")
        done = threading.Event()

        def creep() -> None:
            while not done.wait(0.05):
                for connection in creeping:
                    with suppress(OSError):
                        connection.sendall(b"x")

        thread = threading.Thread(target=creep, daemon=True)
        thread.start()
        try:
            yield [*opened, *creeping]
        finally:
            done.set()
            thread.join()
