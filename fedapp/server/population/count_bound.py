"""How much a client's claimed number of examples may count: nobody can check it."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median_low

__all__ = ["AUTO", "CountBound", "count_bound"]

AUTO = "auto"
ON_DEVICES = 10.0  # what AUTO means there; in simulations, whose data is the server's own, it means no bound


@dataclass(frozen=True)
class CountBound:
    """No client counts for more than `multiple` times `median` examples, the preflight's median: fixed for the run."""

    multiple: float
    median: int

    @property
    def most(self) -> int:
        return math.floor(self.multiple * self.median)

    def counted(self, num_examples: int) -> int:
        """How many of a client's examples count."""
        return min(num_examples, self.most)

    def exceeded(self, num_examples: Mapping[int, int]) -> dict[int, str]:
        """By client whose count is bounded, what is said of it."""
        why = f"count as {self.most}, {self.multiple:g} times the preflight's median (strategy.weight_bound)"
        return {c: f"its {count} training examples {why}" for c, count in num_examples.items() if count > self.most}


def count_bound(setting: float | str | None, num_examples: Iterable[int], *, devices: bool) -> CountBound | None:
    """The bound of a run whose clients claim so many examples. `setting`: of strategy.weight_bound.

    Of two values in the middle the smaller one counts: of two clients, none can make the other's weight vanish.
    """
    multiple = (ON_DEVICES if devices else None) if setting == AUTO else setting
    counts = list(num_examples)
    return CountBound(float(multiple), median_low(counts)) if multiple is not None and counts else None
