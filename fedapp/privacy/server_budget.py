"""What a trusted server spends of its clients' privacy: one ledger for the whole registry, over rounds and runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedapp.common.errors import FederationError
from fedapp.privacy.accounting import SkellamSpending, Spending
from fedapp.privacy.budget import Budget
from fedapp.privacy.ledger import FileLedger
from fedapp.privacy.protection import Declined

__all__ = ["ServerBudget"]

History = list[Spending | SkellamSpending]


@dataclass(frozen=True)
class ServerBudget:
    """`budget`: the cost of a round, with `delta` given, and what all rounds together may cost."""

    budget: Budget
    path: Path

    def pay(self, run: str, server_round: int) -> None:
        """Book a round before anybody is asked; it counts whatever becomes of it, whoever is in it or nobody.

        Raises FederationError where it would cost more than there is.
        """
        try:
            self.budget.pay(self._ledger, run, server_round, 1)
        except Declined:
            raise FederationError(f"{self.exhausted()}; its ledger is {self.path}") from None

    def exhausted(self) -> str | None:
        """Why no further round can be paid; None where it can."""
        after = self.budget.epsilon([*self._history(), self.budget.cost], 1)
        if self.budget.void or after <= self.budget.max_epsilon:
            return None
        return f"privacy budget: one more round would cost epsilon {after:.4g}, of {self.budget.max_epsilon:g}"

    def figures(self) -> dict[str, float | None]:
        """Epsilon of all that was ever spent, in metrics.jsonl's names: as against those who do not learn who was asked
        in which round; and as against those who do, whom sampling hides nothing from."""
        return self._figures(self._history())

    def facts(self) -> dict[str, Any]:
        """What summary.json says of the ledger."""
        history = self._history()
        return {**self._figures(history), "delta": self.budget.delta, "rounds_in_ledger": len(history)}

    def _figures(self, history: History) -> dict[str, float | None]:
        seen: History = [Spending(spent.noise_multiplier, 1.0, spent.steps) for spent in history]
        return {"epsilon_max": self.budget.epsilon(history, 1), "epsilon_unamplified": self.budget.epsilon(seen, 1)}

    @property
    def _ledger(self) -> FileLedger:
        return FileLedger(self.path)

    def _history(self) -> History:
        return [entry.spent for entry in self._ledger.entries()]
