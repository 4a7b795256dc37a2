"""Calls that the gateway holds until there is something to reply: SuperNodes need not ask again and again."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import httpx

from fedapp.flower.fleet_calls import has_message, has_object

__all__ = ["LongPolling"]

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

HOLD = 20.0  # seconds that a call for messages waits for one; Flower's SuperNode gives up after 30
HOLD_OBJECT = 5.0  # seconds that a call for a part of a message waits for it
SHORTEST_POLL, LONGEST_POLL = 0.05, 2.0  # seconds between looks for one
POLL_SHARE = 0.05  # of the time since its last one: looking late adds at most 5 % to a wait, and is rare in long ones


class LongPolling:
    """Looks at the SuperLink by `client`, in seconds of `clock`, until there is a reply or `ends` is true."""

    def __init__(self, client: httpx.AsyncClient, clock: Callable[[], float], ends: Callable[[], bool]) -> None:
        self._client, self._clock, self._ends = client, clock, ends
        self._last: dict[bytes, float] = {}  # by the key of a SuperNode: its last message

    async def message(self, call: httpx.Request, receive: Receive, key: bytes) -> httpx.Response:
        """The SuperLink's reply to a call for messages, once it has one, or says no, or `HOLD` seconds are over."""
        start = self._clock()

        def there(reply: bytes) -> bool:
            some = has_message(reply)
            if some:
                self._last[key] = self._clock()
            return some

        def pause() -> float:
            idle = self._clock() - self._last.setdefault(key, start)
            return min(max(idle * POLL_SHARE, SHORTEST_POLL), LONGEST_POLL)

        return await self._once_there(call, receive, there, pause, HOLD)

    async def object(self, call: httpx.Request, receive: Receive) -> httpx.Response:
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
                if self._clock() - start >= hold or gone.done() or self._ends():
                    return found
        finally:
            gone.cancel()
