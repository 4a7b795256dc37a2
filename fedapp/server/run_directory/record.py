"""The run directory: what a run leaves behind, written as it goes."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from logging import WARNING
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fedapp.common.files import write_atomically
from fedapp.common.logger import log
from fedapp.common.tensor_file import tensor_file
from fedapp.learning.metrics import Metric, of_averages
from fedapp.privacy.server_accounts import ServerAccounts, Spent
from fedapp.server.outcome import RoundOutcome
from fedapp.server.run_directory.history import History, plain
from fedapp.server.run_directory.warnings import Warnings
from fedapp.tracking.tracker import Listener
from fedapp.wire.reply import ClientReport

if TYPE_CHECKING:
    from fedapp.report.tensorboard import EventWriter

__all__ = ["RunRecord"]


class RunRecord:
    """Writes config.yaml, metrics.jsonl, clients.jsonl, TensorBoard events, model.safetensors and summary.json.

    Lines are written one by one: after a crash everything up to the last round is there. `num_examples` by client;
    `metrics`: the task's, by name.
    """

    def __init__(
        self,
        directory: Path,
        config_yaml: str,
        num_examples: Mapping[int, int],
        metrics: Mapping[str, Metric],
        saved: Mapping[str, Any] | None = None,
        accounts: ServerAccounts | None = None,
        trackers: Sequence[Listener] = (),
    ) -> None:
        """With `saved`, a `state_dict` of an earlier process, go on from there. `trackers` are told
        whatever is written; one that fails is told no more, and costs a warning."""
        self.directory, self._num_examples, self._metrics = directory, num_examples, metrics
        self._epsilon: dict[int, float] = {}  # by client, what it has spent
        self.largest_delta: float | None = None
        self._accounts, self._trackers = accounts, [*trackers]
        self.totals: dict[str, int] = {"bytes_up": 0, "bytes_down": 0, "rejected": 0, "unused": 0, "excluded": 0}
        self.warnings = Warnings()
        self._resume_at: int | None = None if saved is None else saved["round"] + 1
        if saved is not None:
            self.totals |= saved["totals"]
            self._epsilon = {int(client): spent for client, spent in saved["epsilon"].items()}
            self.largest_delta = saved["largest_delta"]
            self.warnings = Warnings(saved["warnings"])
        self._history = History(directory, None if saved is None else saved["history"])
        (directory / "config.yaml").write_text(config_yaml, encoding="utf-8")
        self._events: EventWriter | None = None

    def state_dict(self, server_round: int) -> dict[str, Any]:
        """What a resumed run needs, as JSON holds it."""
        return {
            "round": server_round,
            "totals": self.totals,
            "epsilon": {str(client): spent for client, spent in sorted(self._epsilon.items())},
            "largest_delta": self.largest_delta,
            "trained": self._accounts.state_dict() if self._accounts is not None else {},
            "warnings": self.warnings.state_dict(),
            "history": self._history.position(),
        }

    def epsilon_metrics(self, outcome: RoundOutcome) -> dict[str, float]:
        """Largest and median epsilon that clients have spent once this round is counted; nothing without privacy."""
        spent = sorted((self._epsilon | {c: now.spent.epsilon for c, now in self._spent(outcome).items()}).values())
        return {"epsilon_max": spent[-1], "epsilon_median": spent[len(spent) // 2]} if spent else {}

    @property
    def epsilons(self) -> list[float]:
        """What each client that trained has spent so far, ascending."""
        return sorted(self._epsilon.values())

    def add_round(
        self,
        metrics: Mapping[str, float | int | None],
        outcome: RoundOutcome | None,
        warnings: Mapping[str, str] | None = None,
    ) -> None:
        """A line of metrics.jsonl with the round's warnings, and one of clients.jsonl for every client asked.
        `warnings`: those of a round that has no outcome."""
        line: dict[str, Any] = dict(metrics)
        if warnings := outcome.warnings if outcome is not None else warnings:
            self.warnings.add(warnings)
            line["warnings"] = dict(warnings)
        if outcome is not None:
            for stale in ("summary.json", "report.html", "best.safetensors"):  # of a run that had ended and goes on
                (self.directory / stale).unlink(missing_ok=True)
            self._count(outcome)
            rows = self._rows(outcome)
            self._history.append("clients.jsonl", rows)
            self._tell(lambda tracker: tracker.add_clients(rows))
        self._history.append("metrics.jsonl", [line])
        if self._events is None:
            from fedapp.report.tensorboard import EventWriter  # 1 s to import: after the first round's messages

            self._events = EventWriter(self.directory / "tensorboard", resume_at=self._resume_at)
        self._events.add_round(metrics)
        self._tell(lambda tracker: tracker.add_round(metrics))

    def add_arrivals(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Lines of arrivals.jsonl: whom the server asked, and whose reply came when."""
        if events:
            self._history.append("arrivals.jsonl", events)

    def add_final(self, outcome: RoundOutcome) -> None:
        """The final federated evaluation, one line of clients.jsonl for every client."""
        self._count(outcome)
        rows = [
            self._row(outcome.server_round, outcome.replies.reports[client], None)
            for client in sorted(outcome.replies.reports)
        ]
        rows += outcome.stray_rows
        rows = [{"phase": "final", **row} for row in rows]
        self._history.append("clients.jsonl", rows)
        self._tell(lambda tracker: tracker.add_clients(rows))

    def keep_best(self, state: Mapping[str, Tensor]) -> None:
        """best.safetensors: the best model of the run."""
        write_atomically(self.directory / "best.safetensors", tensor_file(state))

    def finish(self, summary: Mapping[str, Any], state: Mapping[str, Tensor] | None) -> None:
        """model.safetensors (where there is a model) and summary.json, each whole or not at all."""
        if self._events is not None:
            self._events.finish(summary)
        if state is not None:
            write_atomically(self.directory / "model.safetensors", tensor_file(state))
        self._write_summary(summary)
        if self._tell(lambda tracker: tracker.finish(summary)):
            self._write_summary({**summary, "warnings": self.warnings.texts()})

    def close(self) -> None:
        """Of a run that was interrupted, and may go on."""
        if self._events is not None:
            self._events.close()
        self._tell(lambda tracker: tracker.close())

    def _write_summary(self, summary: Mapping[str, Any]) -> None:
        content = (json.dumps(plain(summary), indent=2) + "\n").encode()
        write_atomically(self.directory / "summary.json", content)

    def _tell(self, what: Callable[[Listener], None]) -> bool:
        """Returns whether a tracker failed. Whatever its library raises, the run goes on."""
        before = len(self._trackers)
        for tracker in self._trackers[:]:
            try:
                what(tracker)
            except Exception as error:
                self._trackers.remove(tracker)
                said = f"{type(error).__name__}: {error}".splitlines()[0][:300]
                text = f"the tracker failed, and is told no more of this run: {said}"
                self.warnings.add({"tracker": text})
                log(WARNING, "%s", text)
        return len(self._trackers) < before

    def _count(self, outcome: RoundOutcome) -> None:
        now = {"unused": len(outcome.replies.unused), "excluded": len(outcome.excluded)}
        now |= {name: getattr(outcome.replies, name) for name in ("bytes_up", "bytes_down", "rejected")}
        for name, value in now.items():
            self.totals[name] += value

    def _rows(self, outcome: RoundOutcome) -> list[dict[str, Any]]:
        """One for every client asked, with why it is `unused` and until when it is `excluded` where that holds."""
        rows, spent = [], self._spent(outcome, book=True)
        for client, weight in sorted(outcome.weights.items()):
            row = self._row(outcome.server_round, outcome.replies.reports.get(client, ClientReport(client)), weight)
            row |= {"unused": outcome.replies.unused[client]} if client in outcome.replies.unused else {}
            if (found := spent.get(client)) is not None:
                row |= asdict(found.spent) | ({"epsilon_disputed": found.disputed} if found.disputed else {})
                self._epsilon[client] = found.spent.epsilon
                self.largest_delta = max(self.largest_delta or 0.0, found.spent.delta)
            row |= outcome.details.get(client, {})
            row |= {"excluded_until": outcome.excluded[client]} if client in outcome.excluded else {}
            rows.append(row)
        return rows + outcome.stray_rows

    def _spent(self, outcome: RoundOutcome, *, book: bool = False) -> dict[int, Spent]:
        return self._accounts.examine(outcome.replies.reports.values(), book=book) if self._accounts is not None else {}

    def _row(self, server_round: int, report: ClientReport, weight: float | None) -> dict[str, Any]:
        return {
            "round": server_round,
            "client": report.client,
            "num_examples": self._num_examples[report.client],
            "weight": weight,
            "steps": report.steps,
            "seconds": report.seconds or None,  # withheld under privacy
            "rejected": report.rejected,
            "train_loss": report.train_loss,
            "val_examples": report.val_examples,
            "val_loss": report.val_loss,
            **dict.fromkeys(f"val_{name}" for name in self._metrics),
            **{f"val_{name}": value for name, value in of_averages(self._metrics, report.val_metrics).items()},
            **{f"own_{name}": value for name, value in of_averages(self._metrics, report.own_metrics).items()},
        }
