"""What has come of a round that is not over: it is in the checkpoint, so that a resumed run goes on within it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from fedapp.aggregation.reply_log import ReplyLog
from fedapp.common.state_digest import State
from fedapp.server.asynchronous.job import Job
from fedapp.wire.reply import ClientReport, PrivacySpent

__all__ = ["OpenRound"]


@dataclass
class OpenRound:
    """`needed`: good updates that end it. `asked`: clients that have been asked in it, in `draws` draws. `updates`: by
    client, the good ones so far, and `staleness` how old each is. `rows`: what clients.jsonl says besides."""

    server_round: int
    needed: int
    left_out: int
    asked: set[int] = field(default_factory=set)
    draws: int = 0
    updates: dict[int, State] = field(default_factory=dict)
    staleness: dict[int, int] = field(default_factory=dict)
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    hosts: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.log = ReplyLog(self.server_round, self.hosts)

    def ended(self, job: Job, at: float, *, shows_times: bool) -> int:
        """Note that `job` is over, and return how stale its model is."""
        staleness = self.server_round - job.server_round
        self.hosts[job.client] = 0
        self.rows[job.client] = {"staleness": staleness}
        if shows_times:
            self.rows[job.client] |= {"asked_at": job.asked_at, "ended_at": at}
        return staleness

    def verdict(self, client: int, *, replied: bool) -> tuple[str, str]:
        """What has become of a client that was asked, as arrivals.jsonl has it, and why."""
        report = self.log.reports[client]
        if client in self.updates:
            return "used", ""
        if report.declined:
            return "declined", ""
        if report.rejected is not None:
            return ("rejected" if replied else "lost"), report.rejected
        return "unused", self.log.unused[client]

    def state_dict(self) -> dict[str, Any]:
        """As JSON holds it, without `updates`."""
        log = self.log
        return {
            **{name: getattr(self, name) for name in ("server_round", "needed", "left_out", "draws")},
            "asked": sorted(self.asked),
            **{name: _by_text(getattr(self, name)) for name in ("staleness", "rows", "hosts")},
            "updates": sorted(self.updates),
            "reports": [asdict(report) for report in log.reports.values()],
            "unused": _by_text(log.unused),
            **{name: getattr(log, name) for name in ("strays", "bytes_down", "bytes_up")},
        }

    @classmethod
    def restored(cls, saved: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Tensor]]) -> "OpenRound":
        """From a `state_dict`, with the updates by client's number as text."""
        made = cls(*(saved[name] for name in ("server_round", "needed", "left_out")))
        made.asked, made.draws = set(saved["asked"]), saved["draws"]
        made.updates = {client: tensors[str(client)] for client in saved["updates"]}
        made.staleness, made.rows = _by_number(saved["staleness"]), _by_number(saved["rows"])
        made.hosts.update(_by_number(saved["hosts"]))
        made.log.add(_report(found) for found in saved["reports"])
        made.log.unused = _by_number(saved["unused"])
        for name in ("strays", "bytes_down", "bytes_up"):
            setattr(made.log, name, saved[name])
        return made


def _by_text(found: Mapping[int, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in found.items()}


def _by_number(saved: Mapping[str, Any]) -> dict[int, Any]:
    return {int(key): value for key, value in saved.items()}


def _report(saved: Mapping[str, Any]) -> ClientReport:
    spent = saved["privacy"]
    return ClientReport(**{**saved, "privacy": None if spent is None else PrivacySpent(**spent)})
