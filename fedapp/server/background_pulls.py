"""Replies that are fetched one by one beside each other, so that none waits for another's slow upload.

A SuperLink announces a reply before all of it is there, hands it out once, and whoever takes it waits for the rest.
"""

import threading
import time
from collections.abc import Collection
from queue import Empty, SimpleQueue

from flwr.app import Message
from flwr.serverapp import Grid

from fedapp.flower.uploads import Uploads

__all__ = ["BackgroundPulls"]

SHORTEST, LONGEST = 0.05, 1.0  # seconds between two looks for the same reply
SHARE = 0.05  # of the time that it has been waited for


class BackgroundPulls:
    """A thread for each look at a reply. It ends at once where there is none, and with the upload where there is one.
    Threads do nothing but fetch; what comes of it is handed to the caller's thread."""

    def __init__(self, grid: Grid, uploads: Uploads) -> None:
        self._grid, self._uploads = grid, uploads
        self._found: SimpleQueue[tuple[str, list[Message] | Exception]] = SimpleQueue()
        self._began: dict[str, float] = {}  # by message id, since when its reply is waited for
        self._due: dict[str, float] = {}  # and when it is looked for next, unless a thread is at it
        self._busy: set[str] = set()

    def look(self, numbers: Collection[str], until: dict[str, float]) -> None:
        """Look for the replies to those messages whose turn it is. `until`: by message, how long it may take."""
        now = time.monotonic()
        for gone in self._began.keys() - set(numbers):
            del self._began[gone]
            self._due.pop(gone, None)
        for number in numbers:
            self._began.setdefault(number, now)
            if number not in self._busy and self._due.get(number, 0.0) <= now:
                self._busy.add(number)
                thread = threading.Thread(target=self._pull, args=(number, until[number]), daemon=True, name="pull")
                thread.start()

    def found(self, seconds: float) -> list[Message]:
        """What the next look that ends within `seconds` has found. Raises what went wrong with it."""
        try:
            number, replies = self._found.get(timeout=max(seconds, 0.001))
        except Empty:
            return []
        self._busy.discard(number)
        now = time.monotonic()
        waited = now - self._began.get(number, now)
        self._due[number] = now + min(max(SHARE * waited, SHORTEST), LONGEST)
        if isinstance(replies, Exception):
            raise replies
        return replies

    def _pull(self, number: str, until: float) -> None:
        self._uploads.until = until  # of this thread
        try:
            self._found.put((number, list(self._grid.pull_messages([number]))))
        except Exception as error:  # it is the caller's to see
            self._found.put((number, error))
