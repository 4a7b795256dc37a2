"""What clients must have spent by the server's own count, beside what they say: a client may say anything, NaN too."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fedapp.privacy.accounting import epsilon
from fedapp.privacy.budget import Budget
from fedapp.privacy.limits import LARGEST_DELTA
from fedapp.wire.reply import ClientReport, PrivacySpent

__all__ = ["ServerAccounts", "Spent"]

ROUNDING = 1e-3  # of an epsilon that another machine's libraries computed


@dataclass(frozen=True)
class Spent:
    """What counts as spent by a client, and why it is not what the client said; None where it is."""

    spent: PrivacySpent
    disputed: str | None = None


@dataclass
class ServerAccounts:
    """`budget` is that of the config, `num_examples` those of the preflight. A client that trained in r rounds of this
    run has spent what r rounds cost, or more if it has done other runs; and no more than its budget. `trained`: r by
    client, so far."""

    budget: Budget
    num_examples: Mapping[int, int]
    trained: dict[int, int] = field(default_factory=dict)

    def examine(self, reports: Iterable[ClientReport], *, book: bool = False) -> dict[int, Spent]:
        """By client that trained in a round, what it has spent then. With `book`, the round counts from now on."""
        found = {report.client: self._of(report) for report in reports if report.privacy is not None or report.steps}
        if book:
            self.book(found)
        return found

    def state_dict(self) -> dict[str, int]:
        """What a resumed run needs, as JSON holds it."""
        return {str(client): rounds for client, rounds in sorted(self.trained.items())}

    def load(self, saved: Mapping[str, int]) -> None:
        self.trained.update({int(client): rounds for client, rounds in saved.items()})

    def book(self, clients: Iterable[int]) -> None:
        for client in clients:
            self.trained[client] = self.trained.get(client, 0) + 1

    def _of(self, report: ClientReport) -> Spent:
        said, cost = report.privacy, self.budget.cost
        delta = self._largest_delta(report.client)
        rounds = self.trained.get(report.client, 0) + 1
        least = math.inf if self.budget.void else epsilon([cost] * rounds, delta, self.budget.accountant)
        if (why := self._disputed(said, least, delta)) is None and said is not None:
            return Spent(said)
        return Spent(PrivacySpent(cost.noise_multiplier, cost.sample_rate, least, delta), why)

    def _disputed(self, said: PrivacySpent | None, least: float, delta: float) -> str | None:
        if said is None:
            return "it trained, and does not say what that cost"
        cost = self.budget.cost
        pairs = ((said.noise_multiplier, cost.noise_multiplier), (said.sample_rate, cost.sample_rate))
        if not self.budget.void and not all(math.isclose(told, known, rel_tol=ROUNDING) for told, known in pairs):
            return f"it says noise multiplier {pairs[0][0]:g}, sample rate {pairs[1][0]:g}, which are not this run's"
        if not 0 < said.delta <= delta * (1 + ROUNDING):
            return f"it says delta {said.delta:g}, and {delta:g} is the largest that it may take"
        if self.budget.void:
            return None if said.epsilon == math.inf else f"it says epsilon {said.epsilon:g} of noise that is no secret"
        if not said.epsilon >= least * (1 - ROUNDING):
            return f"it says epsilon {said.epsilon:g}, and its rounds in this run alone cost {least:.4g}"
        if said.epsilon > self.budget.max_epsilon * (1 + ROUNDING):
            return f"it says epsilon {said.epsilon:g}, with which it would have declined"
        return None

    def _largest_delta(self, client: int) -> float:
        """Its count is rounded up already, perhaps by a coarser unit of its operator."""
        own = min(LARGEST_DELTA, 0.5 / max(1, self.num_examples[client]))
        return max(own, self.budget.delta or 0.0)
