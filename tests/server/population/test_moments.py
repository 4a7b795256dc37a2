"""Scaling constants of devices: no client's moments decide them, and honest ones keep every bit."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fedapp.data.shards import moments
from fedapp.models.output_layer import ClassWeights
from fedapp.server.population.count_bound import CountBound
from fedapp.server.population.moments import are_shares, bounded_moments, merge_moments
from fedapp.wire.preflight import PreflightReport

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


# --- shares of classes ---------------------------------------------------------------------------------------------

CLASSES = ClassWeights(3)


def of_targets(targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    found = moments(CLASSES.values(targets))
    return found.count, found.mean, found.squares


def report_of(parts: tuple[Tensor, Tensor, Tensor], examples: int) -> PreflightReport:
    columns = {name: part.double()[None] for name, part in zip(("count", "mean", "squares"), parts, strict=True)}
    return PreflightReport("", "", (0,), (examples,), ("",), moments=columns)


@pytest.mark.parametrize("counts", [(1000, 0, 0), (997, 2, 1), (0, 3, 7), (1, 0, 0), (123457, 3, 1)])
def test_true_counts_by_class_are_taken(counts: tuple[int, ...]) -> None:
    targets = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    assert are_shares(report_of(of_targets(targets), sum(counts)), [slice(0, 3)])


@pytest.mark.parametrize(
    "change",
    [
        lambda count, mean, squares: (count, mean * torch.tensor([-1.0, 1, 1]), squares),
        lambda count, mean, squares: (count, mean + torch.tensor([0.0, 5, -5]), squares),
        lambda count, mean, squares: (count, mean + torch.tensor([0.0, 1e-5, 0]), squares),
        lambda count, mean, squares: (count, mean * 2, squares),
        lambda count, mean, squares: (count, torch.tensor([1.0, 1e-300, 0], dtype=torch.float64), squares * 0),
        lambda count, mean, squares: (count, mean, squares * 100),
        lambda count, mean, squares: (count - torch.tensor([0.0, 1, 0]), mean, squares),
        lambda count, mean, squares: (count, mean * 0, squares * 0),
    ],
)
def test_counts_by_class_that_no_examples_have_are_refused(change: Callable[..., Any]) -> None:
    true = of_targets(torch.tensor([0] * 90 + [1] * 9 + [2]))
    assert are_shares(report_of(true, 100), [slice(0, 3)])
    assert not are_shares(report_of(change(*true), 100), [slice(0, 3)])
    assert are_shares(report_of(change(*true), 100), [])


@pytest.mark.parametrize("claimed", [(10**6, 0, 0), (0, 0, 10**6), (1, 10**6 - 1, 0), (COUNT, 0, 0)])
def test_one_report_moves_class_weights_by_its_weight_and_no_more(claimed: tuple[int, ...]) -> None:
    """Ten examples of the rarest class at each of nine honest sites; a liar counts as ten of them at most."""
    honest_one = torch.tensor([0] * 30 + [1] * 10 + [2] * 10)
    parts = {client: of_targets(honest_one) for client in range(9)}
    total = sum(claimed)
    mean = torch.tensor(claimed, dtype=torch.float64) / total
    parts[9] = (torch.full((3,), float(total)).double(), mean, mean * (1 - mean) * total)
    assert are_shares(report_of(parts[9], total), [slice(0, 3)])
    counts = dict.fromkeys(parts, COUNT) | {9: total}
    found, said = bounded_moments(parts, counts, CountBound(10.0, COUNT), [slice(0, 3)])
    assert said == {}
    CLASSES.set_statistics(*merge_moments(found))
    alone = ClassWeights(3)
    alone.set_statistics(*merge_moments([parts[0]]))
    for mine, true in zip(CLASSES.weights.tolist(), alone.weights.tolist(), strict=True):
        assert true / 7 < mine < true * 2.5
        assert math.isfinite(mine)


def test_a_site_with_one_class_keeps_its_counts() -> None:
    parts = {c: of_targets(torch.tensor([0] * 999 + [1])) for c in range(3)} | {3: of_targets(torch.ones(50).long())}
    counts = dict.fromkeys(range(3), 1000) | {3: 50}
    found, said = bounded_moments(parts, counts, CountBound(10.0, 1000), [slice(0, 3)])
    assert said == {}
    assert torch.equal(merge_moments(found)[0], merge_moments(list(parts.values()))[0])
