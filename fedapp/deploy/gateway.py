"""The port for SuperNodes: passes on their calls to the SuperLink, and no others.

Flower serves everything on one port, and anybody who reaches it can start runs, which execute code on every SuperNode.
So the SuperLink listens on its own machine only, and this gateway passes on the calls that SuperNodes make. Before it
reads more of a call than its head, it checks the key as Flower does, so that nobody else can make it hold anything; of
those with a key, each call has a size and a pace, and each key a number of connections (`connections.py`). It adds
signatures to app bundles, which the SuperLink cannot store. A SuperNode that asks for messages when there are none
would ask again after 3 s, so the gateway holds the call until there is one (long polling), and likewise until all parts
of a message are there.
"""

import asyncio
import json
import logging
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from fedapp.common.errors import FederationError
from fedapp.deploy.bodies import CLOSE, Answer, CallerGoneError, read_body, write_answer
from fedapp.deploy.connections import Connections, open_doors
from fedapp.deploy.long_polling import LongPolling
from fedapp.flower.fleet_calls import (
    ACTIVATE,
    GET_FAB,
    LARGEST,
    NOT_ADMITTED,
    PULL_MESSAGES,
    PULL_OBJECT,
    caller,
    is_signed,
)
from fedapp.flower.signatures import with_signatures

__all__ = ["Gateway"]

log = logging.getLogger("flwr")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

# Of one connection, not of the message (RFC 9110, 7.6.1).
HOP = {b"connection", b"keep-alive", b"transfer-encoding", b"te", b"trailer", b"upgrade", b"host", b"expect"}
LONGEST_HEAD = 1 << 14  # bytes of a call's first line and headers
TIMEOUT = 60.0  # seconds
START_TIMEOUT = 10.0


class Gateway:
    """Serves `host:port` by TLS in a thread of its own, for the SuperLink at `upstream` (an https URL). `admitted`
    gives the public keys (PEM) that the SuperLink takes now."""

    def __init__(
        self,
        *,
        upstream: str,
        authority: Path,
        certificate: Path,
        key: Path,
        signatures: Path,
        host: str,
        port: int,
        admitted: Callable[[], Collection[bytes]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._upstream, self._signatures, self._admitted = upstream, signatures, admitted
        self._warned: set[tuple[bytes, str, int]] = set()  # what was said of whom
        context = ssl.create_default_context(cafile=str(authority))
        # Most calls wait in the gateway, and take a connection to the SuperLink only for as long as a look takes.
        limits = httpx.Limits(max_connections=256, max_keepalive_connections=32)
        self._client = httpx.AsyncClient(verify=context, timeout=TIMEOUT, limits=limits)
        config = uvicorn.Config(
            self._handle,
            http="h11",  # the one that bounds a call's head
            h11_max_incomplete_event_size=LONGEST_HEAD,
            ssl_certfile=certificate,
            ssl_keyfile=key,
            interface="asgi3",
            ws="none",
            lifespan="off",
            proxy_headers=False,
            access_log=False,
            log_level="critical",  # what strangers send fills no log
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        self.connections = Connections()
        self._host, self._port, self._server = host, port, uvicorn.Server(config)
        self._ending = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None  # of its thread
        self._polling = LongPolling(self._client, clock, lambda: self._server.should_exit)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="gateway", daemon=True)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        ended = asyncio.ensure_future(self._end_calls())
        await self._server.serve(list(self._doors))
        self._ending.set()
        await ended
        await asyncio.sleep(0.05)  # in which the event loop closes connections

    async def _end_calls(self) -> None:
        """Once the gateway ends: answer calls that are held, and close connections, for which uvicorn may wait."""
        await self._ending.wait()
        calls = list(self._server.server_state.tasks)
        for call in calls:
            call.cancel()
        await asyncio.wait([asyncio.ensure_future(asyncio.sleep(0)), *calls], timeout=1.0)
        self.connections.end_all()

    def start(self) -> None:
        """Raises FederationError if the port cannot be had."""
        self._doors = open_doors(self._host, self._port, self.connections)
        self._thread.start()
        deadline = time.monotonic() + START_TIMEOUT
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise FederationError(f"{self._host}:{self._port}: the gateway did not start")
            time.sleep(0.05)

    def stop(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(timeout=START_TIMEOUT)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One call: refused, or passed on and its reply passed back."""
        try:
            answer = await self._answer(scope, receive)
        except CallerGoneError:
            return
        except asyncio.CancelledError:  # the gateway ends in mid-call; the SuperNode tries again
            answer = Answer(503)
        except Exception:
            log.exception("gateway: a call of %s failed", scope["path"])
            answer = Answer(500, headers=(CLOSE,))
        try:
            await write_answer(answer, send)
        except (TimeoutError, asyncio.CancelledError):
            self.connections.end(scope["client"])

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        """Raises CallerGoneError."""
        path, headers = scope["path"], httpx.Headers(scope["headers"])
        if scope["method"] != "POST" or path not in LARGEST:
            return Answer(404, headers=(CLOSE,))
        key = caller(headers)
        if key is not None:
            if key not in self._admitted():
                status, content = NOT_ADMITTED if path == ACTIVATE else (401, b"")
                return Answer(status, content, (CLOSE,))
            if not is_signed(headers, key):
                return Answer(401, headers=(CLOSE,))
        who = key if key is not None else str(scope["client"][0]).encode()
        self.connections.shows(scope["client"], who)
        body = await read_body(receive, LARGEST[path])
        if isinstance(body, Answer):
            self._warn_once(who, path, body.status)
            return body
        passed = [(name, value) for name, value in scope["headers"] if name not in HOP | {b"content-length"}]
        call = self._client.build_request("POST", self._upstream + path, content=body, headers=passed)
        try:
            return self._passed_back(path, await self._passed_on(path, call, receive, who))
        except httpx.TransportError:
            return Answer(503)  # on which a SuperNode tries again

    def _warn_once(self, who: bytes, path: str, status: int) -> None:
        if (who, path, status) not in self._warned:
            self._warned.add((who, path, status))
            why = f"larger than {LARGEST[path]} bytes" if status == 413 else "too slow"
            log.warning("gateway: a SuperNode's call %s is refused: %s", path, why)

    async def _passed_on(self, path: str, call: httpx.Request, receive: Receive, who: bytes) -> httpx.Response:
        if path == PULL_MESSAGES:
            return await self._polling.message(call, receive, who)
        if path == PULL_OBJECT:
            return await self._polling.object(call, receive)
        return await self._client.send(call)

    def _passed_back(self, path: str, found: httpx.Response) -> Answer:
        content = found.content
        if path == GET_FAB and found.status_code == httpx.codes.OK:
            content = with_signatures(content, self._signatures_of)
        drop = HOP | {b"content-length", b"content-encoding"}
        kept = [(name.lower(), value) for name, value in found.headers.raw if name.lower() not in drop]
        return Answer(found.status_code, content, kept)

    def _signatures_of(self, digest: str) -> dict[str, Any]:
        """By signer, the signatures of an app bundle that scripts/deploy/sign has left in the SuperLink's folder."""
        file = self._signatures / f"{digest}.json"
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}
