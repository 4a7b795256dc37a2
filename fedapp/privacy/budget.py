"""A client's budget: what a round costs, whether it can afford one more, and the line in its ledger before it pays."""

import math
from dataclasses import dataclass

from fedapp.common.errors import ConfigError
from fedapp.privacy.accounting import SkellamSpending, Spending, epsilon
from fedapp.privacy.ledger import Entry, Ledger
from fedapp.privacy.limits import LARGEST_DELTA
from fedapp.privacy.protection import Declined

__all__ = ["Budget", "planned_participations", "rounded_up"]


def rounded_up(count: int, unit: int) -> int:
    """`count` as it may leave the client: the next multiple of `unit`."""
    return -(-count // unit) * unit


def planned_participations(num_rounds: int, fraction: float) -> int:
    """For how many rounds a client must be ready: its mean number and two standard deviations (binomial) more."""
    mean = num_rounds * fraction
    return min(num_rounds, math.ceil(round(mean + 2 * math.sqrt(mean * (1 - fraction)), 9)))


@dataclass(frozen=True)
class Budget:
    """`cost` of one round; no more than `max_epsilon` in all, by `accountant`.

    `delta` of None: the smaller of 1e-5 and half of 1/n, n rounded up to a multiple of `round_counts_to`, so that it
    tells no more of n than that. `strict_delta`: what is asked for may be smaller than this, but not larger. `void`:
    the noise can be predicted, so it counts as none. `most_rounds`: of one run, however much they cost.
    """

    cost: Spending | SkellamSpending
    max_epsilon: float
    delta: float | None
    accountant: str
    round_counts_to: int
    strict_delta: bool = False
    void: bool = False
    most_rounds: int | None = None

    def delta_of(self, num_examples: int) -> float:
        """Raises ConfigError where the delta asked for is no protection: at 1/n a whole example may be published."""
        own = min(LARGEST_DELTA, 0.5 / rounded_up(num_examples, self.round_counts_to))
        if self.delta is None or self.strict_delta:
            return min(own, self.delta or own)
        if self.delta * rounded_up(num_examples, self.round_counts_to) >= 1:
            raise ConfigError("privacy.delta: must be below 1 / number of examples on every client; leave it null")
        return self.delta

    def spent(self, ledger: Ledger, num_examples: int) -> float:
        """Epsilon of all that is in the ledger."""
        return self.epsilon([entry.spent for entry in ledger.entries()], num_examples)

    def pay(self, ledger: Ledger, run: str, server_round: int, num_examples: int) -> float:
        """Write the next round into the ledger. Returns epsilon with it; raises Declined if that is too much.

        Once this has returned, the round counts as spent, whatever becomes of it.
        """
        with ledger.held():
            entries = ledger.entries()
            history = [entry.spent for entry in entries]
            if self.most_rounds is not None and sum(entry.run == run for entry in entries) >= self.most_rounds:
                raise Declined
            after = self.epsilon([*history, self.cost], num_examples)
            if not after <= self.max_epsilon and not self.void:
                raise Declined
            ledger.append(Entry(run, server_round, self.cost.voided() if self.void else self.cost))
        return after

    def epsilon(self, history: list[Spending | SkellamSpending], num_examples: int) -> float:
        """Of all of `history`, by this budget's accountant and delta; infinite where the noise counts as none."""
        return math.inf if self.void else epsilon(history, self.delta_of(num_examples), self.accountant)
