"""A slow upload is waited for beside all others, and holds none of them up."""

import threading
import time
from collections.abc import Iterable
from typing import Any

import pytest
from flwr.app import Message, RecordDict
from in_process import InProcessGrid

from fedapp.server.background_pulls import BackgroundPulls


class Until:
    """In place of `Uploads`: by thread, until when it may wait."""

    def __init__(self) -> None:
        self.until = 0.0


class Uploading:
    """A grid whose replies take as long as their gate is closed; each is handed out once."""

    def __init__(self, *numbers: str) -> None:
        InProcessGrid("")  # messages are this process's
        self.gates = {number: threading.Event() for number in numbers}
        self.waiting = dict.fromkeys(numbers, True)
        self.looks = 0

    def pull_messages(self, numbers: Iterable[str]) -> Iterable[Message]:
        (number,) = numbers
        self.looks += 1
        if number == "broken":
            raise ConnectionError("the SuperLink has gone")
        if not self.waiting.pop(number, False):
            return []
        self.gates[number].wait(30)
        return [Message(RecordDict(), 100, "train", group_id=number)]


def gather(pulls: BackgroundPulls, numbers: set[str], wanted: int) -> list[str]:
    found: list[str] = []
    end = time.monotonic() + 30
    while len(found) < wanted and time.monotonic() < end:
        pulls.look(numbers - set(found), dict.fromkeys(numbers, end))
        found += [reply.metadata.group_id for reply in pulls.found(0.05)]
    return found


def test_a_slow_upload_holds_no_other_up() -> None:
    grid: Any = Uploading("slow", "first", "second")
    until: Any = Until()
    pulls = BackgroundPulls(grid, until)
    grid.gates["first"].set()
    assert gather(pulls, {"slow", "first", "second"}, 1) == ["first"]
    grid.gates["second"].set()
    assert gather(pulls, {"slow", "second"}, 1) == ["second"]
    grid.gates["slow"].set()
    assert gather(pulls, {"slow"}, 1) == ["slow"]


def test_a_reply_is_looked_for_by_one_thread_at_a_time() -> None:
    grid: Any = Uploading("slow")
    until: Any = Until()
    pulls = BackgroundPulls(grid, until)
    for _ in range(20):
        pulls.look({"slow"}, {"slow": time.monotonic() + 9})
        assert pulls.found(0.001) == []
    assert grid.looks == 1
    grid.gates["slow"].set()


def test_what_goes_wrong_is_raised_where_replies_are_waited_for() -> None:
    grid: Any = Uploading()
    until: Any = Until()
    pulls = BackgroundPulls(grid, until)
    pulls.look({"broken"}, {"broken": 1.0})
    with pytest.raises(ConnectionError, match="has gone"):
        pulls.found(10)
