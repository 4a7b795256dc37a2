"""Bodies of calls and replies, as they come and go: of a bounded size, and at a pace."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

__all__ = ["CLOSE", "Answer", "CallerGoneError", "read_body", "write_answer"]

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

GRACE, SLOWEST = 20.0, 1 << 13  # a body takes at most so many seconds, and one for each so many bytes
PIECE = 1 << 16  # bytes
CLOSE = (b"connection", b"close")


@dataclass(frozen=True)
class Answer:
    """A reply's status, content and headers (but for its length)."""

    status: int
    content: bytes = b""
    headers: Iterable[tuple[bytes, bytes]] = ()


class CallerGoneError(Exception):
    """The caller has hung up."""


async def read_body(receive: Receive, largest: int) -> bytes | Answer:
    """A call's body; the refusal of one that has more than `largest` bytes, or comes too slowly.

    Raises CallerGoneError.
    """
    body, start = bytearray(), time.monotonic()
    while True:
        left = GRACE + len(body) / SLOWEST - (time.monotonic() - start)
        try:
            part = await asyncio.wait_for(receive(), max(left, 0.0))
        except TimeoutError:
            return Answer(408, headers=(CLOSE,))
        if part["type"] == "http.disconnect":
            raise CallerGoneError
        body += part.get("body", b"")
        if len(body) > largest:
            return Answer(413, headers=(CLOSE,))
        if not part.get("more_body", False):
            return bytes(body)


async def write_answer(answer: Answer, send: Send) -> None:
    """Raises TimeoutError for a caller who takes it too slowly."""
    content, length = memoryview(answer.content), (b"content-length", str(len(answer.content)).encode())
    async with asyncio.timeout(GRACE + len(content) / SLOWEST):
        await send({"type": "http.response.start", "status": answer.status, "headers": [*answer.headers, length]})
        for start in range(0, max(len(content), 1), PIECE):
            piece, more = bytes(content[start : start + PIECE]), start + PIECE < len(content)
            await send({"type": "http.response.body", "body": piece, "more_body": more})
