"""The port for SuperNodes: passes on their calls to the SuperLink, and no others.

Flower serves everything on one port, and anybody who reaches it can start runs, which execute code on every SuperNode.
So the SuperLink listens on its own machine only, and this gateway passes on the calls that SuperNodes make, which
Flower authenticates by their keys. It adds signatures to app bundles, which the SuperLink cannot store. A SuperNode
that asks for messages when there are none would ask again after 3 s, so the gateway holds the call until there is one
(long polling), and likewise until all parts of a message are there.
"""

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from fedapp.common.errors import FederationError
from fedapp.flower.fleet_calls import GET_FAB, PATHS, PULL_MESSAGES, PULL_OBJECT, caller, has_message, has_object
from fedapp.flower.signatures import with_signatures

__all__ = ["Gateway"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# Of one connection, not of the message (RFC 9110, 7.6.1).
HOP = {b"connection", b"keep-alive", b"transfer-encoding", b"te", b"trailer", b"upgrade", b"host"}
LARGEST = 2**30  # bytes of a call, which is held in memory
TIMEOUT = 60.0  # seconds
START_TIMEOUT = 10.0
HOLD = 20.0  # seconds that a call for messages waits for one; Flower's SuperNode gives up after 30
HOLD_OBJECT = 5.0  # seconds that a call for a part of a message waits for it
SHORTEST_POLL, LONGEST_POLL = 0.05, 2.0  # seconds between looks for one
POLL_SHARE = 0.05  # of the time since its last one: looking late adds at most 5 % to a wait, and is rare in long ones


class Gateway:
    """Serves `host:port` by TLS in a thread of its own, for the SuperLink at `upstream` (an https URL)."""

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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._upstream, self._signatures, self._clock = upstream, signatures, clock
        self._last: dict[
            str, float
        ] = {}  # by the key of a SuperNode that the SuperLink authenticated: its last message
        context = ssl.create_default_context(cafile=str(authority))
        self._client = httpx.AsyncClient(verify=context, timeout=TIMEOUT)
        config = uvicorn.Config(
            self._handle,
            host=host,
            port=port,
            ssl_certfile=certificate,
            ssl_keyfile=key,
            interface="asgi3",
            ws="none",
            lifespan="off",
            access_log=False,
            log_level="warning",
            server_header=False,
        )
        self._where, self._server = f"{host}:{port}", uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="gateway", daemon=True)

    def _serve(self) -> None:
        with suppress(SystemExit):  # how uvicorn says that the port is taken
            self._server.run()

    def start(self) -> None:
        """Raises FederationError if the port cannot be had."""
        self._thread.start()
        deadline = time.monotonic() + START_TIMEOUT
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise FederationError(f"{self._where}: cannot listen there; is another SuperLink running?")
            time.sleep(0.05)

    def stop(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(timeout=START_TIMEOUT)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One call: refused, or passed on and its reply passed back."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in PATHS:
            await _reply(send, 404, [], b"")
            return
        body = bytearray()
        more = True
        while more:
            part = await receive()
            if part["type"] == "http.disconnect":
                return
            body += part.get("body", b"")
            more = part.get("more_body", False)
            if len(body) > LARGEST:
                await _reply(send, 413, [], b"")
                return
        headers = [(name, value) for name, value in scope["headers"] if name not in HOP and name != b"content-length"]
        call = self._client.build_request("POST", self._upstream + scope["path"], content=bytes(body), headers=headers)
        try:
            if scope["path"] == PULL_MESSAGES:
                found = await self._message(call, receive)
            elif scope["path"] == PULL_OBJECT:
                found = await self._object(call, receive)
            else:
                found = await self._client.send(call)
        except httpx.TransportError:
            await _reply(send, 503, [], b"")  # on which a SuperNode tries again
            return
        content = found.content
        if scope["path"] == GET_FAB and found.status_code == httpx.codes.OK:
            content = with_signatures(content, self._signatures_of)
        drop = HOP | {b"content-length", b"content-encoding"}
        kept = [(name.lower(), value) for name, value in found.headers.raw if name.lower() not in drop]
        await _reply(send, found.status_code, kept, content)

    async def _message(self, call: httpx.Request, receive: Receive) -> httpx.Response:
        """The SuperLink's reply to a call for messages, once it has one, or says no, or `HOLD` seconds are over."""
        start = self._clock()
        supernode = caller(call.headers)

        def there(reply: bytes) -> bool:
            some = has_message(reply)
            if some:
                self._last[supernode] = self._clock()
            return some

        def pause() -> float:
            idle = self._clock() - self._last.setdefault(supernode, start)
            return min(max(idle * POLL_SHARE, SHORTEST_POLL), LONGEST_POLL)

        return await self._once_there(call, receive, there, pause, HOLD)

    async def _object(self, call: httpx.Request, receive: Receive) -> httpx.Response:
        """A part of a message, once the server has uploaded it. A SuperNode would look again after 1, 2, 4... s."""
        return await self._once_there(call, receive, has_object, lambda: SHORTEST_POLL, HOLD_OBJECT)

    async def _once_there(
        self,
        call: httpx.Request,
        receive: Receive,
        there: Callable[[bytes], bool],
        pause: Callable[[], float],
        hold: float,
    ) -> httpx.Response:
        """The reply for which `there` is true, or the last one when `hold` seconds are over.

        Polling ends when the caller has hung up, since the SuperLink hands out a message only once.
        """
        gone = asyncio.ensure_future(receive())  # the body is in, so this comes when the caller has gone
        start = self._clock()
        try:
            while True:
                found = await self._client.send(call)
                if found.status_code != httpx.codes.OK or there(found.content):
                    return found
                await asyncio.wait({gone}, timeout=pause())
                if self._clock() - start >= hold or gone.done() or self._server.should_exit:
                    return found
        finally:
            gone.cancel()

    def _signatures_of(self, digest: str) -> dict[str, Any]:
        """By signer, the signatures of an app bundle that scripts/deploy/sign has left in the SuperLink's folder."""
        file = self._signatures / f"{digest}.json"
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


async def _reply(send: Send, status: int, headers: list[tuple[bytes, bytes]], content: bytes) -> None:
    length = (b"content-length", str(len(content)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": content})
