"""arrivals.jsonl: the order in which a run asked its clients and took their replies, and its replay."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedapp.common.errors import ConfigError, FederationError
from fedapp.common.nested import differences, is_among
from fedapp.config.same_maths import FREE
from fedapp.config.saved_config import plain_yaml
from fedapp.server.asynchronous.arrivals import Arrivals, Ended
from fedapp.server.asynchronous.job import Job
from fedapp.server.exchange import Exchange

__all__ = ["RecordedArrivals", "check_replayed", "read_order", "row_asked", "row_ended", "row_over"]

ASKED, ENDED, OVER = "asked", "ended", "over"  # a client was asked; its job, or the round, was over
REJECTED, LOST, TRAINED = "rejected", "lost", "trained"
OUTCOMES = ("used", "unused", "declined", REJECTED, LOST)
TAKEN = ("used", "unused")  # outcomes of a client that has trained


def row_asked(job: Job) -> dict[str, Any]:
    return {"round": job.server_round, "event": ASKED, "job": job.number, "client": job.client}


def row_ended(job: Job, server_round: int, outcome: str, why: str) -> dict[str, Any]:
    """`server_round`: in which it ended."""
    found = {"round": server_round, "event": ENDED, "job": job.number, "client": job.client, "outcome": outcome}
    if outcome == LOST and job.ends_at is not None:  # of real clients nobody knows
        found |= {TRAINED: job.sent}
    return {**found, "why": why} if why else found


def row_over(server_round: int) -> dict[str, Any]:
    """The round has as many updates as it needed, or as it could have."""
    return {"round": server_round, "event": OVER}


def read_order(directory: str, config: Mapping[str, Any], *, keeps: bool) -> tuple[Mapping[str, Any], ...]:
    """The lines of the run in `directory` (run.replay). `keeps`: clients keep something from round to round. Raises
    ConfigError where there are none, or too few, or where this config, as JSON, would compute something else."""
    key, path = f"run.replay={directory}", Path(directory).expanduser()
    if not path.is_absolute():
        raise ConfigError(f"{key}: must be an absolute path, since the server starts elsewhere")
    try:
        lines = (path / "arrivals.jsonl").read_text("utf-8").splitlines()
        before = plain_yaml((path / "config.yaml").read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{key}: has no recorded order of arrival ({reason}); runs with rounds=buffered, or in virtual time, have"
        ) from None
    except Exception as error:  # a parser of YAML has many
        raise ConfigError(f"{key}: its config.yaml cannot be read: {error}") from None
    _check_same(key, before, config)
    events = tuple(_event(line, f"{key}: arrivals.jsonl, line {number}") for number, line in enumerate(lines, start=1))
    done = max((event["round"] for event in events if event["event"] == OVER), default=0)
    wanted = config["federation"]["num_rounds"]
    if done < wanted:
        raise ConfigError(
            f"{key}: has {done} recorded rounds, federation.num_rounds={wanted}; set it to {done} or less"
        )
    if keeps:
        _check_known(key, events)
    return tuple(event for event in events if event["round"] <= done)


def _check_known(key: str, events: Sequence[Mapping[str, Any]]) -> None:
    """Raises ConfigError where a client was asked again, and nobody knows whether it had done what it was asked before:
    what it kept of that decides what it sends."""
    unknown: set[int] = set()  # clients
    for event in events:
        if event["event"] == ASKED and event["client"] in unknown:
            raise ConfigError(
                f"{key}: client {event['client']} was asked again in round {event['round']} after its reply had not"
                " come, and clients keep something between rounds there (compression, federation.personal): whether it"
                " had trained is not recorded"
            )
        elif event["event"] == ENDED and event["outcome"] == LOST and TRAINED not in event:
            unknown.add(event["client"])


def _check_same(key: str, before: Any, config: Mapping[str, Any]) -> None:
    if not isinstance(before, Mapping):
        raise ConfigError(f"{key}: its config.yaml holds no config")
    # As JSON, as `config` is: YAML has numbers as keys.
    changed = differences(json.loads(json.dumps(before)), config, lambda name: not is_among(name, FREE))
    if changed:
        raise ConfigError(f"{key}: this config would compute something else:\n  " + "\n  ".join(changed[:10]))


def _event(line: str, where: str) -> Mapping[str, Any]:
    try:
        event = json.loads(line)
        names = ("round",) if event["event"] == OVER else ("round", "job", "client")
        numbers = all(type(event[name]) is int for name in names)
        known = event["event"] in (ASKED, OVER) or (event["event"] == ENDED and event["outcome"] in OUTCOMES)
    except (ValueError, KeyError, TypeError):
        numbers = known = False
    if not (numbers and known):
        raise ConfigError(f"{where}: is no event of a run; restore the file")
    return dict(event)


def check_replayed(job: Job, recorded: str, outcome: str, why: str) -> None:
    """Raises FederationError for an update that the recorded run used, and that is not to be had again."""
    if recorded == TAKEN[0] != outcome:
        raise FederationError(
            f"run.replay: client {job.client}, asked in round {job.server_round}, does not send again what the recorded"
            f" run used: {why or outcome}"
        )


class RecordedArrivals(Arrivals):
    """The clients that a run asked, in its order, and their replies in its order. What it did not use is not used;
    where clients keep something from round to round (`keeps`), they do that work, too, for what it leaves with them."""

    def __init__(
        self, exchange: Exchange, timeout: float, events: Sequence[Mapping[str, Any]], *, keeps: bool = False
    ) -> None:
        super().__init__(exchange, timeout)
        self._events = events
        ended = [event for event in events if event["event"] == ENDED]
        self._taken = {event["job"] for event in ended if event["outcome"] in TAKEN}
        self._trained = set(self._taken)
        if keeps:
            self._trained |= {event["job"] for event in ended if event["outcome"] == REJECTED or event.get(TRAINED)}
        self.position = 0  # of the next event

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "position": self.position}

    def load(self, saved: Mapping[str, Any]) -> None:
        """A run that goes on in a recorded order did so before, or began with the same part of it."""
        super().load(saved)
        self.position = saved.get("position", 0)

    def prescribed(self, server_round: int) -> list[int]:
        found = []
        while (event := self._event(server_round)) is not None and event["event"] == ASKED:
            found.append(event["client"])
            self.position += 1
        return found

    def is_over(self, server_round: int) -> bool:
        event = self._event(server_round)
        over = event is not None and event["event"] == OVER
        self.position += over
        return over

    def _event(self, server_round: int) -> Mapping[str, Any] | None:
        """The next one; None where this round has no more."""
        if self.position == len(self._events) or self._events[self.position]["round"] != server_round:
            return None
        return self._events[self.position]

    def planned(self, job: Job, num_examples: int) -> Job:
        return replace(job, sent=job.number in self._trained, answers=job.number in self._taken)

    def next(self) -> Ended:
        """Raises FederationError where the recorded run does something else here."""
        event = self._events[self.position] if self.position < len(self._events) else {}
        job = self._jobs.get(event.get("job", -1))
        if job is None or event["event"] != ENDED or job.client != event["client"]:
            raise FederationError(f"run.replay: event {self.position + 1} is of a job that this run does not have")
        self.position += 1
        self.now = float(self.position)
        verdict = event["outcome"], str(event.get("why", ""))
        if not job.sent:
            self._over(job)
            return Ended(job, None, self.now, verdict)
        reply = self._reply(job)
        return Ended(job, reply if job.answers else None, self.now, verdict)
