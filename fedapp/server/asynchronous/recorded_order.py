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

__all__ = ["RecordedArrivals", "check_replayed", "read_order", "row_asked", "row_ended"]

ASKED, ENDED = "asked", "ended"
OUTCOMES = ("used", "unused", "declined", "rejected", "lost")
TAKEN = ("used", "unused")  # outcomes of a client that has trained


def row_asked(job: Job) -> dict[str, Any]:
    return {"round": job.server_round, "event": ASKED, "job": job.number, "client": job.client}


def row_ended(job: Job, server_round: int, outcome: str, why: str) -> dict[str, Any]:
    """`server_round`: in which it ended."""
    found = {"round": server_round, "event": ENDED, "job": job.number, "client": job.client, "outcome": outcome}
    return {**found, "why": why} if why else found


def read_order(directory: str, config: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The lines of the run in `directory` (run.replay). Raises ConfigError where there are none, or too few, or where
    this config, as JSON, would compute something else."""
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
    done, wanted = max((event["round"] for event in events), default=0), config["federation"]["num_rounds"]
    if done < wanted:
        raise ConfigError(
            f"{key}: has {done} recorded rounds, federation.num_rounds={wanted}; set it to {done} or less"
        )
    return events


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
        numbers = all(type(event[name]) is int for name in ("round", "job", "client"))
        known = event["event"] == ASKED or (event["event"] == ENDED and event["outcome"] in OUTCOMES)
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
    """The clients that a run asked, in its order, and their replies in its order. What it did not use is not used."""

    def __init__(self, exchange: Exchange, timeout: float, events: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(exchange, timeout)
        self._events = events
        self._outcomes = {event["job"]: event["outcome"] for event in events if event["event"] == ENDED}
        self.position = 0  # of the next event

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "position": self.position}

    def load(self, saved: Mapping[str, Any]) -> None:
        """A run that goes on in a recorded order did so before, or began with the same part of it."""
        super().load(saved)
        self.position = saved.get("position", 0)

    def prescribed(self) -> list[int]:
        found = []
        while self.position < len(self._events) and self._events[self.position]["event"] == ASKED:
            found.append(self._events[self.position]["client"])
            self.position += 1
        return found

    def planned(self, job: Job, num_examples: int) -> Job:
        taken = self._outcomes.get(job.number) in TAKEN
        return replace(job, sent=taken, answers=taken)

    def next(self) -> Ended:
        if self.position == len(self._events):
            raise FederationError("run.replay: the recorded order ends here, and the run does not")
        event = self._events[self.position]
        job = self._jobs.get(event["job"])
        if job is None or job.client != event["client"]:
            raise FederationError(f"run.replay: event {self.position + 1} is of a job that this run does not have")
        self.position += 1
        self.now = float(self.position)
        verdict = event["outcome"], str(event.get("why", ""))
        if not job.answers:
            self._over(job)
            return Ended(job, None, self.now, verdict)
        return Ended(job, self._reply(job), self.now, verdict)
