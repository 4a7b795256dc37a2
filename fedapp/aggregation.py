"""Exact weighted sums of updates, the same bit for bit in whatever order and grouping they arrive.

Every client's `weight * update` is rounded once to a multiple of 2^-42 and held as a 64-bit integer; integers add
without error, so any order of additions gives the same sum. Weights are normalised to sum to one over the clients
asked, and an update's entries must lie below 2^20 in magnitude, so that no sum can exceed 2^62 and wrap:
|sum of w_c u_c| * 2^42 <= 2^20 * 2^42. Against the true mean each client adds at most 2^-43 of rounding.
"""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

__all__ = ["FRACTION_BITS", "MAX_MAGNITUDE", "WeightedSum", "normalised", "screen"]

FRACTION_BITS = 42
MAX_MAGNITUDE = 2.0**20
BLOCK = 1 << 16  # values converted at a time: the float64 and int64 copies of a block stay in the cache

MANTISSA = 1.5 * 2.0**52  # every float64 within a quarter of this of it is a whole number
MANTISSA_AS_INT = int(torch.tensor(MANTISSA, dtype=torch.float64).view(torch.int64))

State = Mapping[str, Tensor]


def screen(update: State, template: State, *, max_norm: float | None = None) -> str | None:
    """Why this update cannot be used, or None if it can.

    It must have the keys, shapes and dtypes of `template`, and only finite values that the fixed-point
    representation can hold. With `max_norm`, its L2 norm over all floating-point entries must not exceed it.
    """
    if update.keys() != template.keys():
        missing, extra = sorted(template.keys() - update.keys()), sorted(update.keys() - template.keys())
        return f"wrong keys: missing {missing}, unexpected {extra}"
    squares = 0.0
    for key, value in update.items():
        wanted = template[key]
        if value.shape != wanted.shape:
            return f"wrong shape: {key} is {tuple(value.shape)}, the model has {tuple(wanted.shape)}"
        if value.dtype != wanted.dtype:
            return f"wrong dtype: {key} is {value.dtype}, the model has {wanted.dtype}"
        if value.numel() == 0:
            continue
        low, high = torch.aminmax(value)
        if not (math.isfinite(low) and math.isfinite(high)):
            return f"non-finite value in {key}"
        if max(abs(float(low)), abs(float(high))) >= MAX_MAGNITUDE:
            return f"value out of range: {key} has magnitude {max(abs(float(low)), abs(float(high))):g}"
        if max_norm is not None:
            squares += float(torch.linalg.vector_norm(value, dtype=torch.float64)) ** 2
    if max_norm is not None and math.sqrt(squares) > max_norm:
        return f"update norm {math.sqrt(squares):.4g} above {max_norm:g}"
    return None


def normalised(weights: Mapping[int, float]) -> dict[int, float]:
    """Weights by client, scaled to sum to one; the same whatever the order of the mapping."""
    total = math.fsum(weights.values())
    return {client: weight / total for client, weight in weights.items()}


class WeightedSum:
    """The running sum of `weight * update` over clients, in O(model) memory.

    `template` gives the keys and shapes of what is summed: the floating-point entries of a state dict.
    """

    def __init__(self, template: State) -> None:
        self.totals = {key: torch.zeros(value.shape, dtype=torch.int64) for key, value in template.items()}
        self.weights: list[float] = []
        self._float = torch.empty(BLOCK, dtype=torch.float64)
        self._int = torch.empty(BLOCK, dtype=torch.int64)

    def add(self, update: State, weight: float) -> None:
        """Add one client's screened update with its normalised weight."""
        for key, total in self.totals.items():
            flat, source = total.view(-1), update[key].detach().reshape(-1)
            for start in range(0, flat.numel(), BLOCK):
                flat[start : start + BLOCK] += self._rounded(source[start : start + BLOCK], weight)
        self.weights.append(weight)

    def _rounded(self, block: Tensor, weight: float) -> Tensor:
        """`weight * block` as fixed point, valid until the next call."""
        scaled = self._float[: block.numel()]
        low, high = (float(bound) for bound in torch.aminmax(block))
        scaled.copy_(block).mul_(weight * 2.0**FRACTION_BITS)
        if max(-low, high) * weight * 2.0**FRACTION_BITS < MANTISSA / 4:
            # Added to a float64 of this size a number is rounded to a whole one, half to even as by `round`, which then
            # stands in the lowest bits: converting float64 to int64 takes longer than all else here.
            return scaled.add_(MANTISSA).view(torch.int64).sub_(MANTISSA_AS_INT)
        return self._int[: block.numel()].copy_(scaled.round_())

    def add_partial(self, totals: State, weights: Iterable[float]) -> None:
        """Add a sum that was begun elsewhere, of clients with these weights (see `screen_partial`)."""
        for key, total in self.totals.items():
            total += totals[key]
        self.weights.extend(weights)

    def screen_partial(self, totals: State, weights: Iterable[float], *, max_norm: float | None = None) -> str | None:
        """Why this partial sum cannot be added, or None: wrong form, or larger than its clients can have made it.

        By the triangle inequality its norm is at most `max_norm` times the sum of the weights.
        """
        weights = list(weights)
        if totals.keys() != self.totals.keys():
            return "wrong keys in a partial sum"
        bound = (math.fsum(weights) * MAX_MAGNITUDE) * 2.0**FRACTION_BITS + len(weights)
        for key, value in totals.items():
            if value.dtype != torch.int64 or value.shape != self.totals[key].shape:
                return f"wrong dtype or shape: partial sum of {key} is {value.dtype} {tuple(value.shape)}"
            if value.numel() and max(-int(value.min()), int(value.max())) > bound:
                return f"value out of range in the partial sum of {key}"
        if max_norm is not None:
            squares = math.fsum(float(value.double().square().sum()) for value in totals.values())
            norm = math.sqrt(squares) / 2.0**FRACTION_BITS
            if norm > max_norm * math.fsum(weights) * (1 + 1e-9):
                return f"norm {norm:.4g} of a partial sum above {max_norm:g} times its weight"
        return None

    @property
    def weight(self) -> float:
        """The weight summed so far; exactly rounded, so independent of the order."""
        return math.fsum(self.weights)

    def mean(self) -> dict[str, Tensor]:
        """The weighted mean update as float64, over those who were added. Raises ValueError if nobody was."""
        if self.weight <= 0:
            raise ValueError("a weighted mean needs at least one update of positive weight")
        scale = self.weight * 2.0**FRACTION_BITS
        return {key: total.to(torch.float64) / scale for key, total in self.totals.items()}
