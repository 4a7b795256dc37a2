"""Whose reply is next, and what comes of one for which nobody waits any more."""

import time
from collections.abc import Iterator
from typing import Any

from flwr.app import Message, RecordDict
from in_process import InProcessGrid

from fedapp.server.asynchronous.arrivals import RealArrivals
from fedapp.server.asynchronous.job import Job


class Replies:
    """In place of an Exchange: replies that the test lets in, by the number of their message."""

    def __init__(self) -> None:
        InProcessGrid("")  # messages are this process's
        self.there: list[str] = []
        self.sent = 0

    def begin(self, message: Message, timeout: float) -> str:
        self.sent += 1
        return str(self.sent)

    def arrived(self, seconds: float) -> Iterator[tuple[str, Message]]:
        time.sleep(0.005)
        there, self.there = self.there, []
        for number in there:
            yield number, Message(RecordDict(), 100 + int(number), "train", group_id="1")

    def give_up(self, number: str) -> None: ...

    def owes(self, number: str) -> bool:
        return True


def begun(timeout: float) -> tuple[Any, RealArrivals]:
    """Two clients at work, 7 and 8, by messages 1 and 2."""
    replies: Any = Replies()
    arrivals = RealArrivals(replies, timeout)
    for number, client in enumerate((7, 8)):
        job = arrivals.planned(Job(number, client, 1, 0.0), 1)
        arrivals.begin(job, Message(RecordDict(), 100 + client, "train", group_id="1"))
    return replies, arrivals


def test_the_first_reply_is_next_whoever_was_asked_first() -> None:
    replies, arrivals = begun(60)
    replies.there = ["2"]
    assert arrivals.next().job.client == 8
    replies.there = ["1"]
    assert arrivals.next().job.client == 7


def test_a_second_reply_is_a_stray_and_one_after_the_timeout_is_late() -> None:
    replies, arrivals = begun(0.05)
    replies.there = ["2", "2"]
    assert arrivals.next().job.client == 8
    assert len(arrivals.strays) == 1
    ended = arrivals.next()
    assert (ended.job.client, ended.reply) == (7, None)
    assert arrivals.owing == {7}
    arrivals.begin(Job(2, 9, 1, 0.0), Message(RecordDict(), 109, "train", group_id="1"))
    replies.there = ["1", "3"]
    assert arrivals.next().job.client == 9
    assert [(late.group, late.overdue) for late in arrivals.late] == [("1", True)]
    assert len(arrivals.strays) == 1
