"""Conditional randomised rounding (Kairouz et al. 2021, "The Distributed Discrete Gaussian Mechanism for Federated
Learning with Secure Aggregation", section 4.3): unbiased but for vectors that would become too long."""

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["l1_bound", "l2_bound", "rounded"]

BIAS = math.exp(-0.5)  # the paper's beta: the probability with which a rounded vector is too long, at most
MOST_TRIES = 100


def l2_bound(norm: float, length: int) -> float:
    """The L2 norm of a vector (length,) of norm `norm` after it was rounded, at most (their proposition 22)."""
    likely = norm**2 + length / 4 + math.sqrt(2 * math.log(1 / BIAS)) * (norm + math.sqrt(length) / 2)
    return min(math.sqrt(likely), norm + math.sqrt(length))


def l1_bound(l2: float, length: int) -> float:
    """The L1 norm of whole numbers (length,) of this L2 norm, at most."""
    return min(math.sqrt(length) * l2, l2**2)


def rounded(values: NDArray[np.float64], norm: float, random: np.random.Generator) -> NDArray[np.int64]:
    """Each value up or down to a whole number, with its mean kept, until the norm is no more than `l2_bound` of `norm`,
    which `values` must not exceed; towards zero if that never happens."""
    most = l2_bound(norm, len(values)) ** 2
    low = np.floor(values)
    up = values - low
    for _ in range(MOST_TRIES):
        found = (low + (random.random(len(values)) < up)).astype(np.int64)
        if int(np.dot(found, found)) <= most:
            return found
    return np.trunc(values).astype(np.int64)
