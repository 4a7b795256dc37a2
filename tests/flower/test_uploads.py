"""The parts of a reply, as Flower's own grid fetches them: soon after they are there, and not beyond the round."""

import time
from collections.abc import Callable

import pytest
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectUnavailableError
from flwr.superlink.grid import http_grid
from flwr.superlink.grid.http_grid import HttpGrid
from in_process import InProcessGrid

from fedapp.flower.uploads import GRACE, Uploads
from fedapp.server.exchange import Exchange


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> Uploads:
    """Of the grid of a deployment, which is not connected; afterwards Flower's function is as it was."""
    monkeypatch.setattr(http_grid, "pull_objects", http_grid.pull_objects)
    return Uploads(HttpGrid("127.0.0.1:1", insecure=True, token="none"))


def there_in(seconds: float) -> Callable[[str], bytes]:
    """What asks the SuperLink for a part that a device will have uploaded in so many seconds."""
    begin = time.monotonic()

    def ask(name: str) -> bytes:
        if time.monotonic() - begin < seconds:
            raise ObjectUnavailableError(name)
        return name.encode()

    return ask


def test_the_rest_of_a_reply_is_there_soon_after_it_is_uploaded(uploads: Uploads) -> None:
    """Flower looks after 1 s, give or take a fifth."""
    uploads.until = time.monotonic() + 60
    begin = time.monotonic()
    assert http_grid.pull_objects(["a", "b"], there_in(0.06)) == {"a": b"a", "b": b"b"}
    assert time.monotonic() - begin < 0.7


@pytest.mark.parametrize(("left", "waits"), [(3.0, 3.0), (-5.0, GRACE)])
def test_who_is_lost_while_uploading_is_waited_for_until_the_round_is_over(
    uploads: Uploads, left: float, waits: float
) -> None:
    begin = time.monotonic()
    uploads.until = begin + left
    with pytest.raises(ObjectPullError, match="timeout or retry limit"):
        http_grid.pull_objects(["a"], there_in(1000))
    assert waits <= time.monotonic() - begin < waits + 2.5


def test_an_upload_that_takes_most_of_the_round_counts(uploads: Uploads) -> None:
    uploads.until = time.monotonic() + 10
    assert http_grid.pull_objects(["a"], there_in(GRACE + 0.5)) == {"a": b"a"}


def test_another_run_in_the_same_process_has_its_own_time(uploads: Uploads) -> None:
    later = Uploads(HttpGrid("127.0.0.1:1", insecure=True, token="none"))
    uploads.until, later.until = time.monotonic() + 60, 0.0
    begin = time.monotonic()
    with pytest.raises(ObjectPullError):
        http_grid.pull_objects(["a"], there_in(1000))
    assert time.monotonic() - begin < GRACE + 2.5


def test_an_exchange_tells_when_its_time_is_up() -> None:
    exchange = Exchange(InProcessGrid("", 1))
    begin = time.monotonic()
    assert not list(exchange([], 40.0))
    assert 40 <= exchange._uploads.until - begin < 50
