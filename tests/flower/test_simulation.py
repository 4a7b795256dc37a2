"""Messages of a simulation go to the engine at once, by Flower's own loop."""

import queue
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from flwr.server.superlink.fleet.vce import vce_api

from fedapp.flower.simulation import LOOP, deliver_promptly, pause_for_reply, prompt


class State:
    """A link state with one message at a time."""

    def __init__(self) -> None:
        self.looked, self._messages = threading.Event(), list[Any]()

    def store_message_ins(self, message: Any) -> str:
        self._messages.append(message)
        return "id"

    def store_message_res(self, message: Any) -> str:
        return "id"

    def get_message_ins(self, node_id: int, limit: int) -> list[Any]:
        self.looked.set()
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


@pytest.fixture
def engine() -> Iterator[tuple[State, queue.Queue[Any]]]:
    """A link state and the inbox of a prompt loop that would pause for an hour; it ends when it is told to."""
    state, inbox, stop = State(), queue.Queue[Any](), threading.Event()

    def loop(state: Any, inbox: Any, nodes_mapping: Any, f_stop: Any) -> None:
        while not f_stop.is_set():
            for node in nodes_mapping:
                for message in state.get_message_ins(node, 1):
                    inbox.put(message)
            f_stop.wait(3600)

    thread = threading.Thread(target=prompt(loop), args=(state, inbox, {1: 0}, stop), daemon=True)
    thread.start()
    state.looked.wait(30)
    yield state, inbox
    stop.set()
    state.store_message_ins(None)
    thread.join(timeout=30)
    assert not thread.is_alive()


def test_a_stored_message_ends_the_pause(engine: tuple[State, queue.Queue[Any]]) -> None:
    state, inbox = engine
    for number in range(50):
        assert state.store_message_ins(SimpleNamespace(number=number)) == "id"
        assert inbox.get(timeout=30).number == number


def test_a_stored_reply_ends_the_servers_pause(engine: tuple[State, queue.Queue[Any]]) -> None:
    """Whether it comes before the pause or in it; and a pause in which none comes lasts as long as it may."""
    state, grid = engine[0], SimpleNamespace(state=engine[0])
    start = time.monotonic()
    for _ in range(20):
        assert state.store_message_res(object()) == "id"
        assert pause_for_reply(grid, 60)
        threading.Timer(0.01, state.store_message_res, [object()]).start()
        assert pause_for_reply(grid, 60)
    assert time.monotonic() - start < 60
    start = time.monotonic()
    assert pause_for_reply(grid, 0.05)
    assert time.monotonic() - start >= 0.05


@pytest.mark.parametrize("grid", [SimpleNamespace(), SimpleNamespace(state=State())])
def test_a_server_that_nobody_tells_looks_by_itself(grid: Any) -> None:
    assert not pause_for_reply(grid, 3600)
