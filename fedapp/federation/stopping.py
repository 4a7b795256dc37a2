"""When a run ends before its last round."""

from dataclasses import dataclass

from fedapp.errors import FederationError

__all__ = ["StopRules"]


@dataclass
class StopRules:
    """Counts over rounds; `update` after each one gives the reason to stop, or None."""

    target_accuracy: float | None = None
    patience: int | None = None
    max_failed_rounds: int = 3
    rounds_to_target: int | None = None
    _best_loss: float = float("inf")
    _stale: int = 0
    _failed: int = 0
    _ever_changed: bool = False

    def update(self, server_round: int, *, changed: bool, accuracy: float | None, loss: float | None) -> str | None:
        """`accuracy` and `loss` judge the global model; None where nobody has data for that.

        Raises FederationError after `max_failed_rounds` rounds in a row that changed nothing.
        """
        self._failed = 0 if changed else self._failed + 1
        self._ever_changed |= changed
        if self._failed >= self.max_failed_rounds:
            raise FederationError(
                f"{self._failed} rounds in a row had fewer than federation.min_clients good replies; the reasons are in"
                " clients.jsonl. The last good model is kept"
            )
        if self.target_accuracy is not None and accuracy is not None and accuracy >= self.target_accuracy:
            self.rounds_to_target = server_round
            return f"target accuracy {self.target_accuracy:g} reached"
        if loss is not None:
            self._stale = 0 if loss < self._best_loss else self._stale + 1
            self._best_loss = loss if loss < self._best_loss else self._best_loss  # NaN is never better
            if self.patience is not None and self._stale >= self.patience:
                return f"no lower loss in {self._stale} rounds (patience)"
        return None

    def check_end(self) -> None:
        """Raises FederationError for a run none of whose rounds changed the model."""
        if not self._ever_changed:
            raise FederationError(
                "no round had federation.min_clients good replies, so the model is the initial one; the reasons are in"
                " clients.jsonl"
            )
