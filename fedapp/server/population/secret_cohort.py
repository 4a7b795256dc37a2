"""Cohorts under client-level DP: a secret sample of a fixed registry, and nothing that depends on who else is in it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from fedapp.aggregation.selection.selection import Losses
from fedapp.common.errors import FederationError
from fedapp.privacy.sampling import Sampling
from fedapp.server.population.cohort import CohortRule, unasked
from fedapp.server.population.count_bound import CountBound
from fedapp.server.population.roster import Roster

__all__ = ["SecretCohort"]


@dataclass(frozen=True)
class SecretCohort(CohortRule):
    """`registry`: whom the run samples from, to its end. A round of nobody counts, so there is no least number."""

    sampling: Sampling = field(default_factory=lambda: Sampling(1.0, 1.0, 1.0, 1))
    registry: tuple[int, ...] = ()
    minimum: int = 0
    weighting: str = "their own counts"
    secret = True

    def over(self, clients: Collection[int]) -> "SecretCohort":
        """The same over these clients. Raises FederationError for more than the config foresees."""
        if len(clients) > self.sampling.largest:
            raise FederationError(
                f"privacy.population={self.sampling.largest}: more clients can take part, and what each counts follows"
                " from this public constant, never from who is there; set it to as many as there may be"
            )
        return replace(self, registry=tuple(sorted(clients)))

    def draw(self, roster: Roster, server_round: int, losses: Losses = unasked) -> tuple[list[int], int]:
        """Those of the sample who are there. Who is not, was excluded, or failed before, is as likely to be drawn as
        anybody, and adds nothing."""
        there = set(roster.reachable())
        found = [client for client in self.sampling.draw(self.registry, server_round) if client in there]
        return found, len(found)

    def said(self, size: int, clients: int) -> str:
        """How many there are is as secret as who, so this says the public constants."""
        expected, largest = self.sampling.expected, self.sampling.largest
        return f"some {expected:g} of {largest} clients (privacy.population) a round, weighted by {self.weighting}"

    def divisor(self, weight: float) -> float:
        return self.sampling.unit * self.sampling.expected

    def weights(self, num_examples: Mapping[int, int], bound: CountBound | None = None) -> dict[int, float]:
        """Each the same constant: a client's own count is in its update."""
        return dict.fromkeys(num_examples, self.sampling.unit)
