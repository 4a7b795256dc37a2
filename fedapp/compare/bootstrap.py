"""Intervals by the bootstrap over units that belong together, paired between arms, and Holm's correction over sites."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Drawn", "Interval", "holm", "interval", "p_value", "resamples"]

Values = NDArray[np.float64]  # (draws,), NaN where a metric is not defined on a draw
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """`value` on the rows as they are, and between what it lies with 95 %. `undefined`: the share of draws on which it
    is not defined; with more than half of them there is no interval."""

    value: float
    low: float
    high: float
    undefined: float = 0.0

    @property
    def known(self) -> bool:
        return not math.isnan(self.value)


@dataclass(frozen=True)
class Drawn:
    """A figure: as it is, and on each draw."""

    value: float
    draws: Values

    def minus(self, other: "Drawn") -> "Drawn":
        """Paired: both are of the same draws."""
        return Drawn(self.value - other.value, self.draws - other.draws)

    def over(self, other: "Drawn") -> "Drawn":
        """Paired, as `minus`. Of no draws where the other is 0 on one: without these the rest would say too little."""
        if not other.value or (other.draws == 0).any():
            value = self.value / other.value if other.value else math.nan
            return Drawn(value, np.full_like(self.draws, math.nan))
        return Drawn(self.value / other.value, self.draws / other.draws)


def resamples(units: Sequence[Tensor], draws: int, seed: int) -> Tensor:
    """(draws, rows) int64: how often each row is in each draw, of as many units as there are with replacement (the
    cluster bootstrap, Field & Welsh 2007)."""
    count = len(units)
    if not count:
        return torch.zeros(draws, 0, dtype=torch.int64)
    chosen = torch.randint(count, (draws, count), generator=torch.Generator().manual_seed(seed))
    times = torch.zeros(draws, count, dtype=torch.int64).scatter_add_(1, chosen, torch.ones_like(chosen))
    owner = torch.empty(sum(map(len, units)), dtype=torch.int64)
    for place, unit in enumerate(units):
        owner[unit] = place
    return times[:, owner]


def interval(found: Drawn) -> Interval:
    """By the percentiles of the draws (Efron 1979)."""
    known = found.draws[~np.isnan(found.draws)]
    undefined = 1 - len(known) / max(1, len(found.draws))
    if math.isnan(found.value) or undefined > 0.5 or not len(known):
        return Interval(found.value, math.nan, math.nan, undefined)
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(found.value, float(low), float(high), undefined)


def p_value(found: Drawn) -> float:
    """Two-sided, of a difference being 0: twice the share of draws on the other side of it (the interval inverted)."""
    known = found.draws[~np.isnan(found.draws)]
    if math.isnan(found.value) or len(known) * 2 < len(found.draws) or not len(known):
        return math.nan
    side = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return min(1.0, 2 * (side + 1) / (len(known) + 1))


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for being several (Holm 1979); NaN stays, and does not count."""
    known = sorted((value, place) for place, value in enumerate(values) if not math.isnan(value))
    found, largest = [math.nan] * len(values), 0.0
    for rank, (value, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * value))
        found[place] = largest
    return found
