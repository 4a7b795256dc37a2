"""When a run ends before its last round."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Protocol

from fedapp.common.errors import FederationError

__all__ = ["Progress", "Pruning", "StopRules"]


@dataclass
class Progress:
    """What stop rules go by, counted over rounds. `seconds` is time spent running, over all resumptions."""

    round: int = 0
    seconds: float = 0.0
    accuracy: float | None = None
    rounds_to_target: int | None = None
    best: float | None = None
    best_round: int = 0
    stale_rounds: int = 0
    failed_rounds: int = 0
    ever_changed: bool = False
    budget_spent: str | None = None


class Pruning(Protocol):
    def reason(self, server_round: int) -> str | None:
        """Why a trial is not worth another round after `server_round`, or None."""


@dataclass
class StopRules:
    """`update` after each round, then `reason` to stop. `lower_is_better` tells how `patience_metric` is meant,
    `min_delta` by how much a value must be better to count; `min_clients`, for messages, how many good replies a round
    needs."""

    num_rounds: int
    target_accuracy: float | None = None
    patience: int | None = None
    patience_metric: str = "loss"
    lower_is_better: bool = True
    min_delta: float = 0.0
    max_seconds: float | None = None
    max_failed_rounds: int = 3
    min_clients: int = 1
    pruning: Pruning | None = None
    progress: Progress = field(default_factory=Progress)

    def update(
        self,
        *,
        changed: bool,
        accuracy: float | None,
        judged: float | None,
        seconds: float,
        budget_spent: str | None = None,
        of_before: bool = False,
    ) -> bool:
        """Count one more round. `accuracy` and `judged` (the patience metric) are the global model's; None where nobody
        has data for them, or they are not defined on it: such a round is neither better nor worse than the best.

        `of_before`: `judged` is of the model that the round began with, as validation splits have it. Returns whether
        that model is the best so far. `seconds`: how long the run has been running. `budget_spent`: why there is no
        privacy budget for another round.
        """
        now = self.progress
        now.round, now.seconds = now.round + 1, seconds
        now.failed_rounds = 0 if changed else now.failed_rounds + 1
        now.ever_changed |= changed
        now.budget_spent = budget_spent
        now.accuracy = accuracy
        if now.rounds_to_target is None and self._on_target():
            now.rounds_to_target = now.round
        if judged is not None:
            now.stale_rounds += 1
            if self._better(judged):
                now.best, now.best_round, now.stale_rounds = judged, now.round - of_before, 0
                return True
        return False

    def reason(self) -> str | None:
        """Why the run ends here, or None.

        Raises FederationError after `max_failed_rounds` rounds in a row that changed nothing, and at the end of a run
        none of whose rounds did.
        """
        now = self.progress
        if now.failed_rounds >= self.max_failed_rounds and not now.budget_spent:
            raise FederationError(
                f"{now.failed_rounds} rounds in a row had fewer than the {self.min_clients} good replies that a round"
                " needs; the reasons are in clients.jsonl. The last good model is kept"
            )
        found = self._stop()
        if found is not None and not now.ever_changed and not now.round:
            raise FederationError(f"no round can begin: {found}")
        if found is not None and not now.ever_changed:
            raise FederationError(
                f"no round had the {self.min_clients} good replies that it needs, so the model is the initial one; the"
                " reasons are in clients.jsonl"
            )
        return found

    def _stop(self) -> str | None:
        now = self.progress
        if now.budget_spent:
            return now.budget_spent
        if self._on_target():
            return f"target accuracy {self.target_accuracy:g} reached"
        if self.patience is not None and now.stale_rounds >= self.patience:
            best = "" if now.best is None else f"; the best model is that of round {now.best_round}"
            return f"no better {self.patience_metric} in {now.stale_rounds} rounds (patience){best}"
        if self.max_seconds is not None and now.seconds >= self.max_seconds:
            return f"{self.max_seconds:g} s are over (federation.max_seconds)"
        if now.round >= self.num_rounds:
            return "all rounds done"
        return None if self.pruning is None else self.pruning.reason(now.round)

    def _on_target(self) -> bool:
        accuracy = self.progress.accuracy
        return self.target_accuracy is not None and accuracy is not None and accuracy >= self.target_accuracy

    def _better(self, value: float) -> bool:
        """NaN is never better."""
        best = self.progress.best
        if best is None:
            return value == value
        gain = best - value if self.lower_is_better else value - best
        return gain > self.min_delta

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, as JSON holds it."""
        return {**asdict(self.progress), "patience_metric": self.patience_metric}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from `saved`. A run that had ended for too many failed rounds gets as many again."""
        self.progress = Progress(**{item.name: saved[item.name] for item in fields(Progress)})
        if self.progress.failed_rounds >= self.max_failed_rounds:
            self.progress.failed_rounds = 0
        if saved["patience_metric"] != self.patience_metric:
            self.progress.best, self.progress.best_round, self.progress.stale_rounds = None, 0, 0
        if not self._on_target():  # it has been raised
            self.progress.rounds_to_target = None
        elif self.progress.rounds_to_target is None:  # it has been lowered, or is new
            self.progress.rounds_to_target = self.progress.round
