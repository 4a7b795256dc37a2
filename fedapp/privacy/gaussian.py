"""The Gaussian mechanism without sampling, exactly (Balle and Wang 2018, "Improving the Gaussian Mechanism for
Differential Privacy", theorem 8). Several are one, whose squared
sensitivities add (Dong et al. 2022, corollary 3.3)."""

import math
from functools import lru_cache

__all__ = ["epsilon_of_gaussian"]

PRECISION = 1e-9  # of epsilon, which is rounded up


@lru_cache(maxsize=256)
def epsilon_of_gaussian(spread: float, delta: float) -> float:
    """The least epsilon at `delta` where the sensitivity is `spread` standard deviations of the noise."""

    def lost(epsilon: float) -> float:
        apart = epsilon / spread
        return _cdf(spread / 2 - apart) - math.exp(epsilon) * _cdf(-spread / 2 - apart)

    high = 1.0
    while lost(high) > delta:
        high *= 2
    low = 0.0
    while high - low > PRECISION * (1 + high):
        middle = (low + high) / 2
        low, high = (low, middle) if lost(middle) <= delta else (middle, high)
    return high


def _cdf(value: float) -> float:
    """Of the standard normal distribution."""
    return math.erfc(-value / math.sqrt(2)) / 2
