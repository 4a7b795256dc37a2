"""Messages of a simulation go to the engine at once, by Flower's own loop."""

import queue
import threading
import time
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from flwr.server.superlink.fleet.vce import vce_api

from fedapp.prompt_delivery import LOOP, deliver_promptly, prompt


class State:
    """A link state with one message at a time."""

    def __init__(self) -> None:
        self.looks, self._messages = 0, list[Any]()

    def store_message_ins(self, message: Any) -> str:
        self._messages.append(message)
        return "id"

    def get_message_ins(self, node_id: int, limit: int) -> list[Any]:
        self.looks += 1
        found, self._messages = self._messages[:limit], self._messages[limit:]
        return found


def test_flowers_loop_is_the_one_that_is_made_prompt_and_only_once() -> None:
    """Fails where Flower has changed its engine, which costs time and nothing else: see what it has become."""
    flowers = getattr(vce_api, LOOP)
    flowers = getattr(flowers, "__wrapped__", flowers)
    with patch.object(vce_api, LOOP, flowers):
        deliver_promptly()
        ours = getattr(vce_api, LOOP)
        assert ours is not flowers
        deliver_promptly()
        assert getattr(vce_api, LOOP) is ours


def test_an_engine_that_has_changed_is_left_alone() -> None:
    def other(state: Any, inbox: Any) -> None: ...

    with patch.object(vce_api, LOOP, other):
        deliver_promptly()
        assert getattr(vce_api, LOOP) is other


def test_a_stored_message_ends_the_pause() -> None:
    """A loop that would pause for an hour passes on message after message, and ends when it is told to."""
    state, inbox, stop = State(), queue.Queue[Any](), threading.Event()

    def loop(state: Any, inbox: Any, nodes_mapping: Any, f_stop: Any) -> None:
        while not f_stop.is_set():
            for node in nodes_mapping:
                for message in state.get_message_ins(node, 1):
                    inbox.put(message)
            f_stop.wait(3600)

    thread = threading.Thread(target=prompt(loop), args=(state, inbox, {1: 0}, stop))
    thread.start()
    while state.looks == 0:
        time.sleep(0.001)
    for number in range(50):
        assert state.store_message_ins(SimpleNamespace(number=number)) == "id"
        assert inbox.get(timeout=30).number == number
    stop.set()
    state.store_message_ins(None)
    thread.join(timeout=30)
    assert not thread.is_alive()
