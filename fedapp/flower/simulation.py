"""Deliver a simulation's messages at once. Flower's engine looks for new ones ten times a second only.

The engine's own loop is woken when a message is stored, and the server when a reply is. Needs, of flwr 1.41 and 1.42:
`vce_api.add_messages_to_queue` with the parameters in `PARAMETERS`, which calls nothing but `is_set` and `wait` of
`f_stop`; the link state's `store_message_ins` and `store_message_res`; the in-memory grid's `state`. Otherwise Flower's
own pauses apply.
"""

import inspect
import sys
import threading
from collections.abc import Callable
from typing import Any

from fedapp.flower.hosted_grid import HostedGrid
from fedapp.flower.names import warn_once

__all__ = ["deliver_promptly", "is_own", "is_simulated", "pause_for_reply"]

REPLIED = "fedapp_replied"  # an attribute of the engine's state: an event, set when a reply is stored
ENGINE, LOOP = "flwr.server.superlink.fleet.vce.vce_api", "add_messages_to_queue"
PARAMETERS = ["state", "queue", "nodes_mapping", "f_stop"]
STORES = ("store_message_ins", "store_message_res")
SLOWER = "messages of a simulation wait up to 0.1 s each"


def deliver_promptly() -> None:
    """In a simulation's process, before its engine starts: pass messages on as soon as they are there."""
    engine = sys.modules.get(ENGINE)
    if engine is None:  # a device's process
        return
    loop = getattr(engine, LOOP, None)
    if hasattr(loop, "__wrapped__"):  # done already
        return
    if loop is None or list(inspect.signature(loop).parameters) != PARAMETERS:
        warn_once(f"{ENGINE}.{LOOP}({', '.join(PARAMETERS)})", SLOWER)
        return
    setattr(engine, LOOP, prompt(loop))


def prompt(loop: Callable[..., None]) -> Callable[..., None]:
    """Flower's `loop`, with pauses that end when a message is stored."""

    def deliver(state: Any, queue: Any, nodes_mapping: Any, f_stop: threading.Event) -> None:
        if not all(hasattr(state, name) for name in STORES):
            warn_once(f"LinkState.{' and '.join(STORES)}", SLOWER)
            loop(state, queue, nodes_mapping, f_stop)
            return
        stored, replied = threading.Event(), threading.Event()
        state.store_message_ins = telling(state.store_message_ins, stored)
        state.store_message_res = telling(state.store_message_res, replied)
        setattr(state, REPLIED, replied)
        loop(state, queue, nodes_mapping, _Pauses(f_stop, stored))

    setattr(deliver, "__wrapped__", loop)  # noqa: B010 (mypy)
    return deliver


def telling(store: Callable[[Any], Any], stored: threading.Event) -> Callable[[Any], Any]:
    """`store`, with `stored` set after each call."""

    def store_and_tell(message: Any) -> Any:
        try:
            return store(message)
        finally:
            stored.set()

    return store_and_tell


def is_simulated(grid: object) -> bool:
    """Whether SuperNodes are workers of the server's own process. Only then its grid holds the engine's state."""
    return hasattr(grid, "state")


def is_own(grid: object) -> bool:
    """Whether SuperNodes are this command's own, of whichever engine: no SuperNode's claim decides it."""
    return is_simulated(grid) or isinstance(grid, HostedGrid)


def pause_for_reply(grid: object, seconds: float) -> bool:
    """Wait until a reply may be there, at most `seconds`. Returns False at once where no event would end the wait."""
    if isinstance(grid, HostedGrid):
        grid.wait(seconds)
        return True
    replied = getattr(getattr(grid, "state", None), REPLIED, None)
    if not isinstance(replied, threading.Event):
        return False
    replied.wait(seconds)
    replied.clear()  # what is stored from here on ends the next pause; earlier replies are looked for now
    return True


class _Pauses:
    """`f_stop` for the loop: `wait` also returns when a message is stored."""

    def __init__(self, stop: threading.Event, stored: threading.Event) -> None:
        self._stop, self._stored = stop, stored

    def is_set(self) -> bool:
        return self._stop.is_set()

    def wait(self, timeout: float) -> bool:
        self._stored.wait(timeout)
        self._stored.clear()  # what is stored from here on ends the next pause; earlier messages are looked for now
        return self._stop.is_set()
