"""Scaling constants of devices: no client's moments decide them, and honest ones keep every bit."""

import pytest
import torch
from torch import Tensor

from fedapp.data.shards import moments
from fedapp.server.population.count_bound import CountBound
from fedapp.server.population.moments import bounded_moments, merge_moments

Parts = dict[int, tuple[Tensor, Tensor, Tensor]]
COUNT = 50


def honest(clients: int, seed: int = 0) -> Parts:
    """Two features: one that differs by site, and a rare flag that only the last client has."""
    random, found = torch.Generator().manual_seed(seed), {}
    for client in range(clients):
        values = torch.randn(COUNT, 2, generator=random) * 5 + 50 + 10 * client
        values[:, 1] = 0.0
        if client == clients - 1:
            values[::3, 1] = 1.0
        kept = moments(values)
        found[client] = (kept.count, kept.mean, kept.squares)
    return found


def made_up(count: float, mean: float, deviation: float) -> tuple[Tensor, Tensor, Tensor]:
    ones = torch.ones(2, dtype=torch.float64)
    return ones * count, ones * mean, ones * deviation**2 * count


@pytest.mark.parametrize("clients", [1, 2, 3, 9])
def test_honest_moments_keep_every_bit(clients: int) -> None:
    parts = honest(clients)
    bounded, said = bounded_moments(parts, dict.fromkeys(parts, COUNT), CountBound(10.0, COUNT))
    assert said == {}
    for mine, theirs in zip(merge_moments(bounded), merge_moments(list(parts.values())), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("clients", [2, 4, 9])
@pytest.mark.parametrize(
    ("count", "mean", "deviation"),
    [(50, 1e30, 1.0), (50, -1e30, 1.0), (50, 60.0, 1e30), (2**53, 60.0, 5.0), (2**53, 1e9, 1e9), (50, 0.0, 0.0)],
)
def test_made_up_moments_move_the_scale_within_bounds(
    clients: int, count: float, mean: float, deviation: float
) -> None:
    parts = honest(clients)
    expected_mean, expected_std = merge_moments(list(parts.values()))
    parts[clients] = made_up(count, mean, deviation)
    counts = dict.fromkeys(parts, COUNT) | {clients: int(count)}
    found, said = bounded_moments(parts, counts, CountBound(10.0, COUNT))
    merged_mean, merged_std = merge_moments(found)
    spread = 10 * max(float(expected_std[0]), 20.0)
    assert abs(float(merged_mean[0] - expected_mean[0])) <= spread
    assert 0 < float(merged_std[0]) <= 2 * spread
    assert set(said) <= {clients}
    assert (clients in said) == (mean != 0)  # beyond 10, too, for a flag


def test_a_feature_that_nobody_has_is_left_alone() -> None:
    nothing = (torch.zeros(2), torch.zeros(2), torch.zeros(2))
    found, said = bounded_moments({0: nothing, 1: nothing}, {0: 5, 1: 5}, None)
    mean, std = merge_moments(found)
    assert said == {}
    assert torch.equal(mean, torch.zeros(2).double())
    assert torch.equal(std, torch.zeros(2).double())
