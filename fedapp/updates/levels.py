"""Stochastic rounding to 2^bits levels, evenly spaced over -range..range.

A value between two levels becomes one of them, so that its mean is the value (QSGD, Alistarh et al. 2017; with a
rotation before it Suresh et al. 2017). Levels are whole numbers from -2^(bits - 1) to 2^(bits - 1) - 1, and the value
of level q is `step * (q + 1/2)`; so sums of levels are whole numbers, too, and need log2(n) bits more for n clients.
"""

import numpy as np
import torch
from torch import Tensor

__all__ = ["level_sum", "step_of", "to_levels"]


def step_of(bits: int, largest: float) -> float:
    """The distance between two levels."""
    return 2 * largest / ((1 << bits) - 1)


def to_levels(values: Tensor, bits: int, largest: float, seed: int) -> Tensor:
    """float32 (n,) as whole numbers, float32 (n,). What lies beyond +-`largest` becomes the last level."""
    random = np.random.Generator(np.random.SFC64(seed)).random(len(values), dtype=np.float32)
    half, top = 2 ** (bits - 1), (2**bits - 1) / 2
    scaled = values * (1 / step_of(bits, largest))
    return scaled.add_(top).add_(torch.from_numpy(random)).floor_().clamp_(0, 2**bits - 1).sub_(half)


def level_sum(levels: Tensor, clients: int, bits: int, largest: float) -> Tensor:
    """The sum of the values of `clients` clients, from that of their levels; in the levels' dtype."""
    return (levels + clients / 2) * step_of(bits, largest)
