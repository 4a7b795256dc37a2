"""Of how many clients of equal weight a sum is worth, and of how many it must be."""

import math
from collections.abc import Iterable

__all__ = ["LEAST_WORTH", "effective_size", "least_size"]

LEAST_WORTH = 1.2  # one of two may have some nine tenths


def effective_size(weights: Iterable[float]) -> float:
    """Of how many clients of equal weight these are worth (Kish 1965): one that outweighs all others is alone."""
    known = list(weights)
    squares = math.fsum(weight**2 for weight in known)
    return math.fsum(known) ** 2 / squares if squares else 0.0


def least_size(min_cohort: int) -> float:
    """Half of the clients that must be in a sum count: with weights a server could leave all but one out of it."""
    return max(LEAST_WORTH, min_cohort / 2)
