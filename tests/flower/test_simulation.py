"""Messages of a simulation go to the engine at once, by Flower's own loop."""

import queue
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from flwr.server.superlink.fleet.vce import vce_api
from flwr.server.superlink.linkstate import InMemoryLinkState
from flwr.superlink.grid import InMemoryGrid
from flwr.superlink.grid.http_grid import HttpGrid

from fedapp.flower import simulation
from fedapp.flower.simulation import LOOP, STORES, deliver_promptly, is_simulated, pause_for_reply, prompt


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


def test_flowers_loop_is_the_one_that_is_made_prompt_and_only_once(warned: Callable[[], list[str]]) -> None:
    """Fails where Flower has changed its engine, which costs time and nothing else: see what it has become."""
    flowers = getattr(vce_api, LOOP)
    flowers = getattr(flowers, "__wrapped__", flowers)
    with patch.object(vce_api, LOOP, flowers):
        deliver_promptly()
        ours = getattr(vce_api, LOOP)
        assert ours is not flowers
        deliver_promptly()
        assert getattr(vce_api, LOOP) is ours
    assert not warned()


def test_flowers_state_and_grids_are_as_they_must_be() -> None:
    for name in STORES:
        assert hasattr(InMemoryLinkState, name), f"the link state has no {name}"
    state = object()
    grid = InMemoryGrid(SimpleNamespace(state=lambda: state))  # type: ignore[arg-type]
    assert grid.state is state, "the grid of a simulation no longer holds the engine's state"
    assert is_simulated(grid)
    assert not is_simulated(HttpGrid("127.0.0.1:1", insecure=True, token="none"))


def test_flowers_loop_pauses_by_what_it_is_given_and_ends_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pause is replaced here by one that stores a message, and then by one that tells it to stop."""
    state, inbox, stop = State(), queue.Queue[Any](), threading.Event()
    pauses: list[float] = []

    def wait(self: Any, timeout: float) -> bool:
        pauses.append(timeout)
        state.store_message_ins("message") if len(pauses) == 1 else stop.set()
        return stop.is_set()

    monkeypatch.setattr(simulation._Pauses, "wait", wait)
    flowers = getattr(vce_api, LOOP)
    prompt(getattr(flowers, "__wrapped__", flowers))(state, inbox, {1: 0}, stop)
    assert inbox.get_nowait() == "message"
    assert len(pauses) == 2, "Flower's loop no longer pauses by f_stop.wait"


@pytest.mark.parametrize("change", ["parameters", "name"])
def test_an_engine_that_has_changed_is_left_alone(change: str, warned: Callable[[], list[str]]) -> None:
    def other(state: Any, inbox: Any) -> None: ...

    with patch.object(vce_api, LOOP, other if change == "parameters" else None):
        before = getattr(vce_api, LOOP)
        deliver_promptly()
        deliver_promptly()
        assert getattr(vce_api, LOOP) is before
    assert len(warned()) == 1
    assert LOOP in warned()[0]


def test_a_state_that_has_changed_is_passed_on_as_it_is(warned: Callable[[], list[str]]) -> None:
    given: list[Any] = []
    arguments = (SimpleNamespace(), queue.Queue[Any](), {1: 0}, threading.Event())
    for _ in range(2):
        prompt(lambda *passed: given.append(passed))(*arguments)
    assert given == [arguments, arguments]
    assert len(warned()) == 1


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


def test_a_stored_reply_ends_the_servers_pause(
    engine: tuple[State, queue.Queue[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it comes before the pause or in it. A pause of an hour that nothing ends fails by its time limit."""
    state, grid = engine[0], SimpleNamespace(state=engine[0])
    assert state.store_message_res(object()) == "id"
    assert pause_for_reply(grid, 3600)
    pauses: list[float] = []
    wait = threading.Event.wait

    def reply_comes(event: threading.Event, timeout: float) -> bool:
        pauses.append(timeout)
        assert not event.is_set()  # the reply before has ended its own pause only
        state.store_message_res(object())
        return wait(event, timeout)

    replied = getattr(state, simulation.REPLIED)
    monkeypatch.setattr(replied, "wait", reply_comes.__get__(replied))
    for _ in range(20):
        assert pause_for_reply(grid, 3600)
    assert pauses == 20 * [3600]


def test_without_a_reply_the_servers_pause_lasts_as_long_as_it_may(
    engine: tuple[State, queue.Queue[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    replied, pauses = getattr(engine[0], simulation.REPLIED), list[float]()
    monkeypatch.setattr(replied, "wait", pauses.append)
    assert pause_for_reply(SimpleNamespace(state=engine[0]), 0.05)
    assert pauses == [0.05]


@pytest.mark.parametrize("grid", [SimpleNamespace(), SimpleNamespace(state=State())])
def test_a_server_that_nobody_tells_looks_by_itself(grid: Any) -> None:
    assert not pause_for_reply(grid, 3600)
