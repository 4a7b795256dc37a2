"""Weights of examples by score, for metrics of rankings on many draws at once."""

import torch
from torch import Tensor

__all__ = ["by_score"]


def by_score(scores: Tensor, positive: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Of `scores` (n,), ascending and each value once: how many examples that are `positive` (n,) bool have it in each
    draw of `counts` (draws, n), and how many others. (draws, values) float64 each."""
    values, place = torch.unique(scores, return_inverse=True)
    found = []
    for chosen in (positive, ~positive):
        weights = torch.zeros(len(counts), len(values), dtype=torch.float64)
        found.append(weights.index_add_(1, place[chosen], counts[:, chosen].double()))
    return found[0], found[1]
