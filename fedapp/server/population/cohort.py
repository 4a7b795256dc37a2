"""Who takes part in a round, and how much each counts: functions of config, round and the preflight's counts."""

import math
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

from fedapp.aggregation.exact_sum import normalised
from fedapp.aggregation.groups import Groups, alone
from fedapp.server.population.count_bound import CountBound
from fedapp.server.population.roster import Roster

__all__ = ["CohortRule"]

WEIGHTINGS = {"num_examples": float, "uniform": lambda _: 1.0, "sqrt": math.sqrt}


@dataclass(frozen=True)
class CohortRule:
    """`fraction` of the clients that are there are needed, at least `minimum`; `over_selection` is the share that is
    asked beyond those needed. No client weighs more than `weight_cap`, in the unit of `weighting`. `groups`: who
    is asked together or not at all."""

    seed: int
    fraction: float = 1.0
    minimum: int = 1
    over_selection: float = 0.0
    weighting: str = "num_examples"
    weight_cap: float | None = None
    groups: Groups = alone
    secret: ClassVar[bool] = False  # nothing may tell who was in a round, and the server pays for each

    def needed(self, num_clients: int) -> int:
        """How many updates a round of `num_clients` that are there is to have: at most all."""
        # 0.07 * 100 is 7.000000000000001 in floating point and must not become 8.
        return min(num_clients, max(self.minimum, math.ceil(round(self.fraction * num_clients, 9))))

    def asked(self, needed: int, num_clients: int) -> int:
        """How many clients are asked for `needed` updates, of `num_clients` that can be."""
        return min(num_clients, math.ceil(round(needed * (1 + self.over_selection), 9)))

    def sample(self, clients: Collection[int], size: int, server_round: int) -> list[int]:
        """`size` clients, sorted, rounded up to whole groups: a uniform sample of these without replacement, fixed by
        (seed, round, the set of clients)."""
        groups = self.groups(clients)
        count = min(len(groups), math.ceil(size / len(groups[0]))) if groups else 0
        # A string seeds Python's generator by SHA-512, alike on every platform and in every version.
        drawn = random.Random(f"cohort/{self.seed}/{server_round}").sample(groups, count)
        return sorted(client for group in drawn for client in group)

    def draw(self, roster: Roster, server_round: int) -> tuple[list[int], int]:
        """Whom a round asks, of those who are there, and how many updates it needs."""
        there = self.whole(roster.reachable())
        free = self.whole(roster.available(server_round, self.minimum))
        if len(free) < self.minimum:  # groups of which some are excluded, or busy
            free = there
        needed = len(self.sample(free, self.needed(len(there)), server_round))
        return self.sample(free, self.asked(needed, len(free)), server_round), needed

    def said(self, size: int, clients: int) -> str:
        """What the log says before the run, of rounds of `size` of so many clients."""
        return f"{size} of {clients} clients a round, weighted by {self.weighting}"

    def divisor(self, weight: float) -> float:
        """What a round's sum over clients of this `weight` is divided by."""
        return weight

    def whole(self, clients: Collection[int]) -> list[int]:
        """Those whose group is complete among them, sorted."""
        return sorted(client for group in self.groups(clients) for client in group)

    def weights(self, num_examples: Mapping[int, int], bound: CountBound | None = None) -> dict[int, float]:
        """By client, its weight among these, from numbers of training examples; they sum to one.

        With `bound` they are multiples of the weight of the preflight's median, times a power of two that follows from
        the bound and from how many clients these are: at most one in sum, and none depends on what another claims.
        """
        rule, cap = WEIGHTINGS[self.weighting], self.weight_cap or math.inf
        if bound is None:
            return normalised({client: min(rule(count), cap) for client, count in num_examples.items()})
        unit, most = min(rule(bound.median), cap), min(rule(bound.most), cap)
        scale = 2.0 ** -math.ceil(math.log2(max(1, len(num_examples)) * most / unit))
        return {client: scale * (min(rule(bound.counted(n)), cap) / unit) for client, n in num_examples.items()}
