"""What a trusted server spends of its clients' privacy: one ledger for the whole registry, over rounds and runs.

A lost ledger would let the next run begin as if nothing had been spent. So its head, the number of its lines and the
last one's hash, is also in every checkpoint of a run and, where the ledger lasts over runs, in another folder; and
where there is no ledger a lasting one is begun on request alone.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fedapp.common.errors import FederationError
from fedapp.privacy.accounting import SkellamSpending, Spending
from fedapp.privacy.budget import Budget
from fedapp.privacy.ledger import FileLedger
from fedapp.privacy.protection import Declined

__all__ = ["ServerBudget"]

log = logging.getLogger("flwr")

History = list[Spending | SkellamSpending]


@dataclass(frozen=True)
class ServerBudget:
    """`budget`: the cost of a round, with `delta` given, and what all rounds together may cost. `lasts`: the ledger
    is of more than one run, and none is begun where there is none, unless `begins`: it begins with this run."""

    budget: Budget
    ledger: FileLedger
    lasts: bool = False
    begins: bool = False

    def check(self, head: str | None = None) -> None:
        """Before the first round. `head`: what the checkpoint that a run goes on from says of the ledger, None for a
        run that begins.

        Raises FederationError for a ledger that is damaged, shorter than any copy of its head says, or not there; for
        one that is there and was to begin; and where it, or a copy of its head, cannot be written.
        """
        with self._said():
            spent = len(self.ledger.entries())
            self.ledger.check_head(head or "", "the run's checkpoint")
        if not spent and self.lasts and not self.begins:
            raise FederationError(
                f"ledger {self.ledger.path}: there is none, and what these clients have spent is not known. Put it back"
                " from its newest copy, or start the server with the FLWR_HOME that it is in. If they have spent"
                " nothing yet, begin one by privacy.new_ledger=true"
            )
        if spent and self.begins and head is None:
            raise FederationError(
                f"privacy.new_ledger=true: {spent} rounds are in the ledger {self.ledger.path} already, and this one"
                " would be counted with them; leave the setting out, or give new clients a server with an FLWR_HOME of"
                " its own"
            )
        if self.lasts:  # a simulation's is in the run directory, which is not there yet
            with self._said():
                self.ledger.check()
        if not spent:
            log.warning("privacy=client_dp: begins a new ledger, at epsilon 0: %s", self.ledger.path)
        else:
            log.info("privacy=client_dp: %d rounds are in the ledger %s", spent, self.ledger.path)

    @property
    def head(self) -> str:
        """What a checkpoint must hold of the ledger."""
        return self.ledger.head

    def pay(self, run: str, server_round: int) -> None:
        """Book a round before anybody is asked; it counts whatever becomes of it, whoever is in it or nobody.

        Raises FederationError where it would cost more than there is.
        """
        try:
            with self._said():
                self.budget.pay(self.ledger, run, server_round, 1)
        except Declined:
            raise FederationError(f"{self.exhausted()}; its ledger is {self.ledger.path}") from None

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

    @contextmanager
    def _said(self) -> Iterator[None]:
        """Raises FederationError in place of OSError."""
        try:
            yield
        except OSError as error:
            raise FederationError(
                f"ledger {self.ledger.path}: it, or a copy of its head, cannot be read and written: {error}. Let the"
                " server write there, or set FLWR_HOME (the ledger) and HOME (its head, in fedapp-runs) to folders that"
                " last and can be written"
            ) from None

    def _figures(self, history: History) -> dict[str, float | None]:
        seen: History = [Spending(spent.noise_multiplier, 1.0, spent.steps) for spent in history]
        return {"epsilon_max": self.budget.epsilon(history, 1), "epsilon_unamplified": self.budget.epsilon(seen, 1)}

    def _history(self) -> History:
        return [entry.spent for entry in self.ledger.entries()]
