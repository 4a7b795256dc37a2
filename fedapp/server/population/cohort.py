"""Who takes part in a round, and how much each counts: functions of config, round and the preflight's counts."""

import math
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from fedapp.aggregation.exact_sum import normalised
from fedapp.aggregation.groups import Groups, alone
from fedapp.aggregation.selection.selection import Losses, Selection
from fedapp.aggregation.selection.uniform import Uniform
from fedapp.common.errors import FederationError
from fedapp.server.population.count_bound import CountBound
from fedapp.server.population.roster import Roster

__all__ = ["CohortRule"]

WEIGHTINGS = {"num_examples": float, "uniform": lambda _: 1.0, "sqrt": math.sqrt}

UNIFORM = Uniform()


def unasked(clients: Sequence[int]) -> Mapping[int, float]:
    """Where nobody can be asked before the cohort is chosen."""
    raise FederationError("cohort: this option asks clients for their losses first, which only a round can do")


@dataclass(frozen=True)
class CohortRule:
    """`fraction` of the clients that are there are needed, at least `minimum`; `over_selection` is the share that is
    asked beyond those needed. No client weighs more than `weight_cap`, in the unit of `weighting`. `groups`: who
    is asked together or not at all. `selection`: how the cohort is chosen of who can be asked."""

    seed: int
    fraction: float = 1.0
    minimum: int = 1
    over_selection: float = 0.0
    weighting: str = "num_examples"
    weight_cap: float | None = None
    groups: Groups = alone
    selection: Selection = UNIFORM
    secret: ClassVar[bool] = False  # nothing may tell who was in a round, and the server pays for each

    def needed(self, num_clients: int) -> int:
        """How many updates a round of `num_clients` that are there is to have: at most all."""
        # 0.07 * 100 is 7.000000000000001 in floating point and must not become 8.
        return min(num_clients, max(self.minimum, math.ceil(round(self.fraction * num_clients, 9))))

    def asked(self, needed: int, num_clients: int) -> int:
        """How many clients are asked for `needed` updates, of `num_clients` that can be."""
        return min(num_clients, math.ceil(round(needed * (1 + self.over_selection), 9)))

    def sample(
        self,
        clients: Collection[int],
        size: int,
        server_round: int,
        num_examples: Mapping[int, int] = MappingProxyType({}),
        losses: Losses = unasked,
        draw: int = 0,
    ) -> list[int]:
        """`size` of these clients, sorted, rounded up to whole groups, without replacement: as `selection` chooses by
        (seed, round, the set of clients), `num_examples` and `losses`. `draw`: how many of
        this round there were before."""
        groups = self.groups(clients)
        # A string seeds Python's generator by SHA-512, alike on every platform and in every version.
        seeded = random.Random(f"cohort/{self.seed}/{server_round}{f'/{draw}' if draw else ''}")
        drawn = self.selection.chosen(groups, self._count(groups, size), seeded, num_examples, losses)
        return sorted(client for group in drawn for client in group)

    @staticmethod
    def _count(groups: Sequence[tuple[int, ...]], size: int) -> int:
        """Of how many groups `size` clients are."""
        return min(len(groups), math.ceil(size / len(groups[0]))) if groups else 0

    def draw(self, roster: Roster, server_round: int, losses: Losses = unasked) -> tuple[list[int], int]:
        """Whom a round asks, of those who are there, and how many updates it needs."""
        there = self.whole(roster.reachable())
        free = self.whole(roster.available(server_round, self.minimum))
        if len(free) < self.minimum:  # groups of which some are excluded, or busy
            free = there
        groups = self.groups(free)
        needed = sum(map(len, groups[: self._count(groups, self.needed(len(there)))]))
        return self.sample(free, self.asked(needed, len(free)), server_round, roster.counted, losses), needed

    def said(self, size: int, clients: int) -> str:
        """What the log says before the run, of rounds of `size` of so many clients."""
        return f"{size} of {clients} clients a round{self.selection.words}, weighted by {self.weighting}"

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
