"""Messages of a simulation without Flower's pause: its engine looks for new ones ten times a second.

A round of a small model takes less than that pause. Here the engine's own loop is told when a message is there. Where
Flower has changed, it is left as it is, and only time is lost.
"""

import inspect
import sys
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["deliver_promptly"]

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
        stored, store = threading.Event(), state.store_message_ins

        def store_and_tell(message: Any) -> Any:
            try:
                return store(message)
            finally:
                stored.set()

        state.store_message_ins = store_and_tell
        loop(state, queue, nodes_mapping, _Pauses(f_stop, stored))

    setattr(deliver, "__wrapped__", loop)  # noqa: B010 (mypy)
    return deliver


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
