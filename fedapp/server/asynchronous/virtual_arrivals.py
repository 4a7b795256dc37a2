"""Whose reply is next in virtual time: a simulation plays slow and vanishing clients."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fedapp.common.errors import ConfigError, FederationError
from fedapp.server.asynchronous.arrivals import Arrivals, Ended
from fedapp.server.asynchronous.client_speed import ClientSpeed, vanishes
from fedapp.server.asynchronous.job import Job
from fedapp.server.exchange import Exchange

__all__ = ["VirtualArrivals"]


class VirtualArrivals(Arrivals):
    """A simulation's clients take the virtual seconds of `speed`, or vanish, whatever their work takes here. A reply
    that takes more than `limit` virtual seconds is late. No real clock has a say: what is late is waited for, too, and
    `timeout` is for what is broken."""

    def __init__(
        self, exchange: Exchange, timeout: float, speed: ClientSpeed, *, limit: float, dropout: float, seed: int
    ) -> None:
        super().__init__(exchange, timeout)
        self._speed, self._limit, self._dropout, self._seed = speed, limit, dropout, seed
        self._free_at: dict[int, float] = {}  # by client that was late, when it is at work no more

    def planned(self, job: Job, num_examples: int) -> Job:
        """One that vanishes does no work. One that is too slow does it for nothing."""
        gone = vanishes(self._dropout, self._seed, job.server_round, job.client)
        takes = self._speed.duration(self._seed, job.server_round, job.client, num_examples)
        answers = not gone and takes <= self._limit
        return replace(
            job,
            ends_at=job.asked_at + (takes if answers else self._limit),
            sent=not gone,
            answers=answers,
            free_at=None if gone or answers else job.asked_at + takes,
        )

    @property
    def owing(self) -> set[int]:
        """Clients that are late, and still at work."""
        self._free_at = {client: at for client, at in self._free_at.items() if at > self.now}
        return set(self._free_at)

    def state_dict(self) -> dict[str, Any]:
        owing = {str(client): at for client, at in self._free_at.items()}
        return {**super().state_dict(), "timeout": self._limit, "owing": owing}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Raises ConfigError for another timeout, which here decides what is computed."""
        super().load(saved)
        if "timeout" not in saved:
            raise ConfigError("run.replay=null: this run replays another one; give the run.replay that it began with")
        if saved["timeout"] != self._limit:
            raise ConfigError(
                f"federation.round_timeout={self._limit:g}: was {saved['timeout']:g}, and decides in virtual time who"
                " is late; go on with that"
            )
        self._free_at = {int(client): at for client, at in saved["owing"].items()}

    def next(self) -> Ended:
        """Raises FederationError where a reply that must be there does not come."""
        job = min(self._jobs.values(), key=lambda job: (job.ends_at, job.number))
        assert job.ends_at is not None
        self.now = job.ends_at
        if not job.sent:
            self._over(job)
            return Ended(job, None, self.now)
        reply = self._reply(job)
        if reply is None:
            raise FederationError(
                f"virtual time: client {job.client}, asked in round {job.server_round}, has sent nothing in"
                f" {self._timeout:g} real seconds; run.resume goes on from the last checkpoint"
            )
        if job.answers:
            return Ended(job, reply, self.now)
        self._came_late(reply, said=True)
        if job.free_at is not None:
            self._free_at[job.client] = job.free_at
        return Ended(job, None, self.now)
