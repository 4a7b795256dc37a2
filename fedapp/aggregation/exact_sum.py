"""Exact weighted sums of updates, the same bit for bit in whatever order and grouping they arrive.

Every client's `weight * update` is rounded once to a multiple of 2^-42 and held as a 64-bit integer; integers add
without error, so any order of additions gives the same sum. Weights sum to at most one over the clients asked, and an
update's entries must lie below 2^20 in magnitude, so that no sum can exceed 2^62 and wrap:
|sum of w_c u_c| * 2^42 <= 2^20 * 2^42. Against the true sum each client adds at most 2^-43 of rounding.

Where clients' counts are bounded (`CohortRule.weights`), a client's weight is a multiple m of the median client's,
m <= bound, times 2^-k, where 2^(k-1) < bound * cohort <= 2^k. So the sum stays at most one whatever anybody claims, and
rounding moves the mean of median clients by at most 2 * bound times as much as with weights that sum to one. Without a
bound weights are normalised over those asked, and one client's claim may leave nothing of the others' updates.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedapp.common.state_digest import State

__all__ = ["FRACTION_BITS", "MAX_MAGNITUDE", "Screening", "WeightedSum", "as_float", "examine", "normalised"]

FRACTION_BITS = 42
MAX_MAGNITUDE = 2.0**20
BLOCK = 1 << 16  # values converted at a time: the float64 copy of a block stays in the cache
TOGETHER, MOST_WAITING = 4, 1 << 26  # updates added at a time, and values: a block of totals is fetched once for all

MANTISSA = 1.5 * 2.0**52  # every float64 within a quarter of this of it is a whole number
MANTISSA_AS_INT = int(torch.tensor(MANTISSA, dtype=torch.float64).view(torch.int64))


@dataclass(frozen=True)
class Screening:
    """Why an update cannot be used, or None if it can; and then the largest magnitude in each of its entries."""

    fault: str | None
    largest: Mapping[str, float] = field(default_factory=dict)


def examine(update: State, template: State) -> Screening:
    """Whether an update can be used.

    It must have the keys, shapes and dtypes of `template`, and only finite values that the fixed-point
    representation can hold.
    """
    if update.keys() != template.keys():
        missing, extra = sorted(template.keys() - update.keys()), sorted(update.keys() - template.keys())
        return Screening(f"wrong keys: missing {missing}, unexpected {extra}")
    largest = {}
    for key, value in update.items():
        wanted = template[key]
        if value.shape != wanted.shape:
            return Screening(f"wrong shape: {key} is {tuple(value.shape)}, the model has {tuple(wanted.shape)}")
        if value.dtype != wanted.dtype:
            return Screening(f"wrong dtype: {key} is {value.dtype}, the model has {wanted.dtype}")
        largest[key] = magnitude(value)
        if not math.isfinite(largest[key]):
            return Screening(f"non-finite value in {key}")
        if largest[key] >= MAX_MAGNITUDE:
            return Screening(f"value out of range: {key} has magnitude {largest[key]:g}")
    return Screening(None, largest)


def magnitude(value: Tensor) -> float:
    """The largest absolute value, 0 of nothing; NaN or infinity where there is one."""
    if not value.numel():
        return 0.0
    values = _as_numpy(value).reshape(-1)  # NumPy's maximum takes half as long as torch's
    blocks = [values[start : start + BLOCK] for start in range(0, len(values), BLOCK)]
    extremes = np.array([(block.max(), block.min()) for block in blocks], dtype=np.float64)
    return float(np.abs(extremes).max())


def _as_numpy(value: Tensor) -> NDArray[Any]:
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()  # NumPy has no bfloat16


def normalised(weights: Mapping[int, float]) -> dict[int, float]:
    """Weights by client, scaled to sum to one; the same whatever the order of the mapping."""
    total = math.fsum(weights.values())
    return {client: weight / total for client, weight in weights.items()}


class WeightedSum:
    """The running sum of `weight * update` over clients, in O(model) memory: a few updates may wait to be added.

    `template` gives the keys and shapes of what is summed: the floating-point entries of a state dict.
    """

    def __init__(self, template: State) -> None:
        self._totals = {key: torch.zeros(value.shape, dtype=torch.int64) for key, value in template.items()}
        self._size = sum(value.numel() for value in template.values())
        self._waiting: list[tuple[State, float, Mapping[str, float] | None]] = []
        self._offsets = 0  # how many times MANTISSA_AS_INT is in each value of the totals
        self.weights: list[float] = []
        self._float = np.empty(BLOCK, dtype=np.float64)
        self._block = torch.from_numpy(self._float)

    @property
    def totals(self) -> dict[str, Tensor]:
        """The sums so far, as int64 fixed point."""
        self._take_in()
        if self._offsets:
            # Modulo 2^64, in which integers of 64 bits are added: what went over on the way comes back.
            offset = np.int64((self._offsets * MANTISSA_AS_INT + 2**63) % 2**64 - 2**63)
            for total in self._totals.values():
                values = total.numpy()
                np.subtract(values, offset, out=values)
            self._offsets = 0
        return self._totals

    def add(self, update: State, weight: float, largest: Mapping[str, float] | None = None) -> None:
        """Add one client's screened update, which must not change from then on, with its normalised weight.

        `largest`: what `examine` found of it.
        """
        self._waiting.append((update, weight * 2.0**FRACTION_BITS, largest))
        self.weights.append(weight)
        count = len(self._waiting)
        if count == TOGETHER or (count + 1) * self._size > MOST_WAITING:
            self._take_in()

    def _take_in(self) -> None:
        """Add what waits."""
        for key, total in self._totals.items():
            flat = total.view(-1).numpy()
            sources = [(update[key].detach().reshape(-1), scale, largest) for update, scale, largest in self._waiting]
            scaled = [(u, scale, scale * (magnitude(u) if most is None else most[key])) for u, scale, most in sources]
            for start in range(0, len(flat), BLOCK):
                part = flat[start : start + BLOCK]
                for source, scale, bound in scaled:
                    np.add(part, self._fixed_point(source[start : start + BLOCK], scale, bound), out=part)
        self._offsets += len(self._waiting)
        self._waiting.clear()

    def _fixed_point(self, block: Tensor, scale: float, bound: float) -> NDArray[np.int64]:
        """`scale * block`, rounded half to even, plus MANTISSA_AS_INT; valid until the next call."""
        self._block[: len(block)].copy_(block)  # torch's conversion takes less time than NumPy's
        scaled = self._float[: len(block)]
        np.multiply(scaled, scale, out=scaled)
        if bound < MANTISSA / 4:
            # Added to a float64 of this size a number is rounded to a whole one, half to even as by `rint`, which then
            # stands in the lowest bits: converting float64 to int64 takes twice as long.
            np.add(scaled, MANTISSA, out=scaled)
            return scaled.view(np.int64)
        return np.rint(scaled, out=scaled).astype(np.int64) + MANTISSA_AS_INT

    def add_partial(self, totals: State, weights: Iterable[float]) -> None:
        """Add a sum that was begun elsewhere, of clients with these weights (see `screen_partial`)."""
        for key, total in self._totals.items():
            total += totals[key]
        self.weights.extend(weights)

    def screen_partial(self, totals: State, weights: Iterable[float]) -> str | None:
        """Why this partial sum cannot be added, or None: wrong form, or larger than its clients can have made it."""
        weights = list(weights)
        if totals.keys() != self._totals.keys():
            return "wrong keys in a partial sum"
        bound = (math.fsum(weights) * MAX_MAGNITUDE) * 2.0**FRACTION_BITS + len(weights)
        for key, value in totals.items():
            if value.dtype != torch.int64 or value.shape != self._totals[key].shape:
                return f"wrong dtype or shape: partial sum of {key} is {value.dtype} {tuple(value.shape)}"
            if value.numel() and max(-int(value.min()), int(value.max())) > bound:
                return f"value out of range in the partial sum of {key}"
        return None

    @property
    def weight(self) -> float:
        """The weight summed so far; exactly rounded, so independent of the order."""
        return math.fsum(self.weights)

    def sum(self) -> dict[str, Tensor]:
        """The weighted sum of updates as float64."""
        return as_float(self.totals)


def as_float(totals: State) -> dict[str, Tensor]:
    """Fixed-point totals as float64. Dividing by a power of two rounds nothing."""
    return {key: total.to(torch.float64).div_(2.0**FRACTION_BITS) for key, total in totals.items()}
