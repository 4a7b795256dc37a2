"""The Skellam mechanism: what a sum of whole numbers costs under Skellam noise (Agarwal et al. 2021, "The Skellam
Mechanism for Differentially Private Federated Learning", arXiv 2110.04995).

Skellam noise of variance mu is the difference of two Poisson variables of mean mu / 2. Sums of independent ones are
Skellam again, of the summed variance, so it does not matter over how many clients it is spread.
"""

import math
from collections.abc import Iterable

__all__ = ["ORDERS", "epsilon_from_rdp", "rdp"]

ORDERS = (*range(2, 129), 160, 192, 256, 384, 512, 768, 1024)  # the bound is of whole orders


def rdp(order: int, *, l1: float, l2: float, variance: float) -> float:
    """The Renyi divergence of `order` between Skellam noise of `variance` on each entry and the same noise on a vector
    of whole numbers with these norms, at most (corollary 4.1 with a scale of one). Raises ValueError for other orders
    than whole ones above 1."""
    if order != int(order) or order < 2:
        raise ValueError(f"the bound holds for whole orders above 1, not for {order}")
    if not variance > 0:
        return math.inf if l2 else 0.0
    gaussian = order * l2**2 / (2 * variance)
    more = ((2 * order - 1) * l2**2 + 6 * l1) / (4 * variance**2)
    return gaussian + min(more, 3 * l1 / (2 * variance))


def epsilon_from_rdp(costs: Iterable[tuple[int, float]], delta: float) -> float:
    """The least epsilon at `delta` that follows from RDP of any of these (order, cost) (Canonne et al. 2020,
    proposition 12)."""
    found = (
        cost + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)
        for order, cost in costs
        if math.isfinite(cost)
    )
    return max(0.0, min(found, default=math.inf))
