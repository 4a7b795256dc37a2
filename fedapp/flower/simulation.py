"""Messages of a simulation without pauses: its engine looks for new ones ten times a second, a server for replies.

A round of a small model takes less than such a pause. Here the engine's own loop is told when a message is there, and
the server when a reply is. Where Flower has changed, it is left as it is, and only time is lost.
"""

import inspect
import sys
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["deliver_promptly", "is_simulated", "pause_for_reply"]

REPLIED = "fedapp_replied"  # an attribute of the engine's state: an event, set when a reply is stored
ENGINE, LOOP = "flwr.server.superlink.fleet.vce.vce_api", "add_messages_to_queue"


def deliver_promptly() -> None:
    """In a simulation's process, before its engine starts: pass messages on as soon as they are there."""
    engine = sys.modules.get(ENGINE)  # not there on devices, whose processes need not import it
    loop = getattr(engine, LOOP, None)
    if loop is None or hasattr(loop, "__wrapped__"):  # it has been done
        return
    if list(inspect.signature(loop).parameters) == ["state", "queue", "nodes_mapping", "f_stop"]:
        setattr(engine, LOOP, prompt(loop))


def prompt(loop: Callable[..., None]) -> Callable[..., None]:
    """Flower's `loop`, whose pauses end when a message is stored."""

    def deliver(state: Any, queue: Any, nodes_mapping: Any, f_stop: threading.Event) -> None:
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
    """Whether SuperNodes are workers of the server's own process: its grid has the engine's state at hand then, while
    that of a deployment asks a SuperLink."""
    return hasattr(grid, "state")


def pause_for_reply(grid: object, seconds: float) -> bool:
    """Wait until a reply may be there, but no longer than `seconds`; False, and no wait, where nobody would tell."""
    replied = getattr(getattr(grid, "state", None), REPLIED, None)
    if not isinstance(replied, threading.Event):
        return False
    replied.wait(seconds)
    replied.clear()  # what is stored from here on ends the next pause; what came before is looked for now
    return True


class _Pauses:
    """What the loop asks whether to stop, and waits for between looks."""

    def __init__(self, stop: threading.Event, stored: threading.Event) -> None:
        self._stop, self._stored = stop, stored

    def is_set(self) -> bool:
        return self._stop.is_set()

    def wait(self, timeout: float) -> bool:
        self._stored.wait(timeout)
        self._stored.clear()  # what is stored from here on ends the next pause; what came before is looked for now
        return self._stop.is_set()
