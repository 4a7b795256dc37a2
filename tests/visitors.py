"""Whoever keeps a live page open, from its first answer to its last."""

import re
import time
from collections.abc import Callable
from threading import Thread
from typing import Any

import httpx
from commands import PATIENCE

__all__ = ["Visitor", "address_in"]


def address_in(printed: str) -> str | None:
    """Of the live page, once a command has printed it."""
    found = re.search(r"live page  (http://127\.0\.0\.1:\d+/)", printed)
    return found[1] if found else None


class Visitor(Thread):
    """Asks for the state as the page does, until nobody answers. `statuses`: those seen, each change once."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self.page = httpx.get(address, trust_env=False).text
        self.statuses: list[str] = []
        self.state: dict[str, Any] = {}
        self._address = address
        self.start()

    def run(self) -> None:
        while True:
            try:
                self.state = httpx.get(f"{self._address}state.json", trust_env=False, timeout=60).json()
            except httpx.TransportError:
                return
            if self.statuses[-1:] != [self.state["status"]]:
                self.statuses.append(self.state["status"])
            time.sleep(0.1)

    def wait_for(self, what: Callable[[dict[str, Any]], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not (self.state and what(self.state)):
            assert self.is_alive(), self.statuses
            assert time.monotonic() < deadline, self.state
            time.sleep(0.05)

    def until_gone(self) -> None:
        self.join(PATIENCE)
        assert not self.is_alive()
