"""Whose reply is next: as they come, or otherwise (`virtual_arrivals.py`, `recorded_order.py`)."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from flwr.app import Message

from fedapp.server.asynchronous.job import Job
from fedapp.server.exchange import Exchange, Late
from fedapp.wire.records import tensor_bytes

__all__ = ["Arrivals", "Ended", "RealArrivals"]


@dataclass(frozen=True)
class Ended:
    """A job that is over `at` so many seconds; `reply` None where none came in time. `verdict`: of a recorded run, what
    became of it there, and why."""

    job: Job
    reply: Message | None
    at: float
    verdict: tuple[str, str] | None = None


class Arrivals(ABC):
    """`now`: seconds since the run began. `is_virtual`: they follow from the config alone. `strays`: second replies.
    `late`: replies that came when nobody waited for them.
    `timeout`: real seconds that a reply is waited for."""

    is_virtual: bool = True

    def __init__(self, exchange: Exchange, timeout: float) -> None:
        self._exchange, self._timeout = exchange, timeout
        self._jobs: dict[int, Job] = {}
        self._messages: dict[str, tuple[Job, int]] = {}  # by id, those without a reply, each with its SuperNode
        self._replies: dict[int, Message] = {}  # by job, those whose turn has not come, in the order of arrival
        self._owing: dict[int, str] = {}  # by client, the message that it still owes a reply to
        self._given_up: set[str] = set()  # messages whose replies nobody waits for any more
        self.strays: list[Message] = []
        self.late: list[Late] = []
        self.now = 0.0

    def planned(self, job: Job, num_examples: int) -> Job:
        """`job` with what is known before it is sent."""
        return job

    def state_dict(self) -> dict[str, Any]:
        return {"now": self.now}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.now = saved["now"]

    def prescribed(self, server_round: int) -> list[int] | None:
        """Whom a recorded run asked at this point of the round; None where that is free."""
        return None

    def is_over(self, server_round: int) -> bool | None:
        """Whether the round ended here in a recorded run; None where that is free."""
        return None

    def begin(self, job: Job, message: Message | None) -> None:
        """`message`: what is to be sent, if anything is."""
        self._jobs[job.number] = job
        if message is not None:
            self._messages[self._exchange.begin(message, self._timeout)] = job, message.metadata.dst_node_id

    @abstractmethod
    def next(self) -> Ended:
        """The job that is over next; there must be one."""

    def at_work(self, num_examples: Mapping[int, int]) -> dict[int, int]:
        """By SuperNode, how many examples it still has to do."""
        found: dict[int, int] = {}
        for job, node in self._messages.values():
            found[node] = found.get(node, 0) + num_examples[job.client]
        return found

    @property
    def owing(self) -> set[int]:
        """Clients that are late, and may still be at work."""
        self._owing = {client: number for client, number in self._owing.items() if self._exchange.owes(number)}
        return set(self._owing)

    def give_up(self) -> None:
        """Wait for nobody any more."""
        for job in [*self._jobs.values()]:
            self._over(job)

    def _over(self, job: Job) -> None:
        """`job` is over without a reply."""
        del self._jobs[job.number]
        self._replies.pop(job.number, None)
        for number in [number for number, (other, _) in self._messages.items() if other.number == job.number]:
            del self._messages[number]
            self._given_up.add(number)
            self._owing[job.client] = number
            self._exchange.give_up(number)

    def _take_in(self, seconds: float) -> None:
        """The replies that are there, or come within `seconds`."""
        for number, reply in self._exchange.arrived(seconds):
            found = self._messages.pop(number, None)
            if found is None and number in self._given_up:
                self._came_late(reply)
            elif found is None:
                self.strays.append(reply)
            else:
                self._replies[found[0].number] = reply

    def _came_late(self, reply: Message, *, said: bool = False) -> None:
        """`said`: that it is late has been told, and nothing but its bytes count any more."""
        size, about = tensor_bytes(reply.content) if reply.has_content() else 0, reply.metadata
        self.late.append(Late(about.src_node_id, about.group_id, overdue=not said, tensor_bytes=size))

    def _reply(self, job: Job) -> Message | None:
        """The reply to `job`, waited for; None where it does not come."""
        end = time.monotonic() + self._timeout
        while job.number not in self._replies and (left := end - time.monotonic()) > 0:
            self._take_in(left)
        reply = self._replies.pop(job.number, None)
        if reply is None:
            self._over(job)
        else:
            del self._jobs[job.number]
        return reply


class RealArrivals(Arrivals):
    """Replies count as they come. A job ends without one `timeout` seconds after it was sent."""

    is_virtual = False

    def __init__(self, exchange: Exchange, timeout: float) -> None:
        super().__init__(exchange, timeout)
        self._start = time.monotonic()
        self._ends: dict[int, float] = {}

    def load(self, saved: Mapping[str, Any]) -> None:
        super().load(saved)
        self._start = time.monotonic() - self.now

    def planned(self, job: Job, num_examples: int) -> Job:
        return replace(job, asked_at=time.monotonic() - self._start)

    def begin(self, job: Job, message: Message | None) -> None:
        super().begin(job, message)
        self._ends[job.number] = time.monotonic() + self._timeout

    def next(self) -> Ended:
        while True:
            self.now = time.monotonic() - self._start
            if self._replies:
                number = next(iter(self._replies))
                return Ended(self._jobs.pop(number), self._replies.pop(number), self.now)
            first = min(self._jobs.values(), key=lambda job: (self._ends[job.number], job.number))
            left = self._ends[first.number] - time.monotonic()
            if left <= 0:
                self._over(first)
                return Ended(first, None, self.now)
            self._take_in(left)
