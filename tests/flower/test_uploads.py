"""The parts of a reply, as Flower's own grid fetches them: soon after they are there, and not beyond the round."""

import inspect
import time
from collections.abc import Callable
from typing import Any

import pytest
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectUnavailableError
from flwr.superlink.grid import http_grid
from flwr.superlink.grid.http_grid import HttpGrid
from in_process import InProcessGrid

from fedapp.flower import uploads as module
from fedapp.flower.uploads import FIRST_LOOK, GRACE, LIMITS, LONGEST_PAUSE, PULL, Uploads
from fedapp.server.exchange import Exchange

FLOWERS = inspect.unwrap(http_grid.pull_objects)
NOW = 1000.0


@pytest.fixture
def unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Afterwards Flower's function is as it was."""
    monkeypatch.setattr(http_grid, PULL, FLOWERS)


@pytest.fixture
def pulled(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The keyword arguments of each call of Flower's function, which fetches nothing here."""
    calls: list[dict[str, Any]] = []

    def pull(
        object_ids: list[str],
        pull_object_fn: Callable[[str], bytes],
        *,
        max_time: float | None = None,
        max_tries_per_object: int | None = 500,
        initial_backoff: float = 1,
        backoff_cap: float = 10,
    ) -> dict[str, bytes]:
        names = ("max_time", "max_tries_per_object", "initial_backoff", "backoff_cap")
        calls.append(dict(zip(names, (max_time, max_tries_per_object, initial_backoff, backoff_cap), strict=True)))
        return {}

    monkeypatch.setattr(http_grid, PULL, pull)
    return calls


def deployed(clock: Callable[[], float] = time.monotonic) -> Uploads:
    """Of the grid of a deployment, which is not connected."""
    return Uploads(HttpGrid("127.0.0.1:1", insecure=True, token="none"), clock)


def there_after(looks: int) -> tuple[Callable[[str], bytes], list[str]]:
    """What asks the SuperLink for a part that a device has uploaded after so many looks, and the looks so far."""
    asked: list[str] = []

    def ask(name: str) -> bytes:
        asked.append(name)
        if len(asked) <= looks:
            raise ObjectUnavailableError(name)
        return name.encode()

    return ask, asked


def test_flowers_grid_fetches_by_the_function_that_is_limited() -> None:
    """Fails where Flower's grid of a deployment fetches the parts of a reply in another way."""
    parameters = inspect.signature(FLOWERS).parameters
    assert parameters.keys() >= LIMITS, f"{PULL} takes other limits: {list(parameters)}"
    assert PULL in HttpGrid.pull_messages.__code__.co_names, f"HttpGrid.pull_messages no longer calls {PULL}"


@pytest.mark.usefixtures("unchanged")
def test_flowers_function_looks_until_all_parts_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_LOOK", 0.0)
    deployed().until = time.monotonic() + 600
    ask, asked = there_after(5)
    assert http_grid.pull_objects(["a"], ask) == {"a": b"a"}
    assert asked == 6 * ["a"]


@pytest.mark.usefixtures("unchanged")
def test_flowers_function_ends_when_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE", 0.0)
    deployed().until = 0.0
    ask, asked = there_after(1000)
    with pytest.raises(ObjectPullError, match="timeout or retry limit"):
        http_grid.pull_objects(["a"], ask)
    assert asked == ["a"]


@pytest.mark.parametrize(("left", "waits"), [(30.0, 30.0), (GRACE / 2, GRACE), (-5.0, GRACE)])
def test_a_lost_device_is_waited_for_until_the_round_is_over(
    pulled: list[dict[str, Any]], left: float, waits: float
) -> None:
    deployed(lambda: NOW).until = NOW + left
    http_grid.pull_objects(["a"], bytes, initial_backoff=7)
    (limits,) = pulled
    assert limits == {
        "max_time": waits,
        "max_tries_per_object": None,
        "initial_backoff": FIRST_LOOK,
        "backoff_cap": LONGEST_PAUSE,
    }


def test_another_run_in_the_same_process_has_its_own_time(pulled: list[dict[str, Any]]) -> None:
    first, later = deployed(lambda: NOW), deployed(lambda: NOW)
    first.until, later.until = NOW + 60, NOW + 10
    http_grid.pull_objects(["a"], bytes)
    assert [limits["max_time"] for limits in pulled] == [10.0]


def test_an_exchange_tells_when_its_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    exchange = Exchange(InProcessGrid("", 1))
    with monkeypatch.context() as stopped:
        stopped.setattr(time, "monotonic", lambda: NOW)
        assert not list(exchange([], 40.0))
    assert exchange._uploads.until == NOW + 40


class Other(Grid):
    """A deployment's grid that fetches in some other way."""


Other.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]


@pytest.mark.usefixtures("unchanged")
def test_a_grid_that_fetches_otherwise_is_left_alone(warned: Callable[[], list[str]]) -> None:
    for _ in range(2):
        Uploads(Other())  # type: ignore[abstract]
    assert http_grid.pull_objects is FLOWERS
    assert len(warned()) == 1
    assert "Other" in warned()[0]


@pytest.mark.usefixtures("unchanged")
def test_other_limits_are_left_alone(monkeypatch: pytest.MonkeyPatch, warned: Callable[[], list[str]]) -> None:
    def pull(object_ids: list[str], pull_object_fn: Callable[[str], bytes]) -> dict[str, bytes]:
        return {}

    monkeypatch.setattr(http_grid, PULL, pull)
    deployed()
    deployed()
    assert http_grid.pull_objects is pull
    assert len(warned()) == 1


def test_a_simulations_grid_needs_no_uploads(warned: Callable[[], list[str]]) -> None:
    Uploads(InProcessGrid("", 1))
    assert not warned()
