"""Cohorts that nobody can predict: a Poisson sample of a fixed registry, from the operating system's entropy."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedapp.privacy.noise import make_noise

__all__ = ["Sampling"]


@dataclass(frozen=True)
class Sampling:
    """Each client of the registry is in a round with probability `rate`, independently of the others.

    `unit`: what each counts in a round's sum, a power of two; `expected`: how many are expected in a round. Both, and
    `largest`, how many the registry may have, are constants of the config: were they taken from the registry or from
    the cohort, one client more would change what all others count.
    """

    rate: float
    unit: float
    expected: float
    largest: int
    source: str = "os_entropy"

    def draw(self, registry: Sequence[int], server_round: int) -> list[int]:
        """This round's clients, in the registry's order; another draw each time it is called. There may be none."""
        chosen = make_noise(self.source, server_round).poisson_sample(len(registry), self.rate)
        return [registry[int(place)] for place in chosen]
