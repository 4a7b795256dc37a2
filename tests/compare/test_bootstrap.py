"""Intervals cover at the rate that they state, and are of whole units; Holm's correction; metrics on many draws."""

import numpy as np
import pytest
import torch
from torch import Tensor

from fedapp.compare.bootstrap import Drawn, holm, interval, p_value, resamples
from fedapp.data.source import Schema
from fedapp.learning.metrics import Metric, choose
from fedapp.learning.metrics.classification import Accuracy

CLASSES = Schema((2,), ("no", "yes"))
NUMBER = Schema((2,))
UNITS, SIZE, TRUTH = 60, 5, 0.7


def patients(random: torch.Generator) -> Tensor:
    """Whether a model is right on each row: for four patients in five it is right on all rows or on none."""
    of_patient = torch.rand(UNITS, generator=random) < TRUTH
    alone = torch.rand(UNITS, SIZE, generator=random) < TRUTH
    same = torch.rand(UNITS, 1, generator=random) < 0.8
    return torch.where(same, of_patient[:, None], alone).flatten()


def coverage(units: list[Tensor]) -> float:
    """Of 95 % intervals over 300 data sets, the share that holds the true accuracy."""
    random, hits = torch.Generator().manual_seed(1), 0
    counts = resamples(units, 400, seed=2).double()
    for _ in range(300):
        right = patients(random).double()
        found = interval(Drawn(float(right.mean()), (counts @ right / counts.sum(1)).numpy()))
        hits += found.low <= TRUTH <= found.high
    return hits / 300


def test_intervals_cover_at_the_stated_rate() -> None:
    assert 0.91 <= coverage(list(torch.arange(UNITS * SIZE).split(SIZE))) <= 0.98


def test_single_rows_would_cover_too_little() -> None:
    """What the test above would find if rows of a patient were drawn one by one."""
    assert coverage(list(torch.arange(UNITS * SIZE).split(1))) < 0.8


def test_units_are_drawn_whole_and_as_many_as_there_are() -> None:
    units = [torch.tensor([0, 3]), torch.tensor([1]), torch.tensor([2, 4, 5])]
    counts = resamples(units, 50, seed=0)
    assert counts.shape == (50, 6)
    assert (counts[:, 0] == counts[:, 3]).all()
    assert (counts[:, 2] == counts[:, 5]).all()
    assert (counts[:, [0, 1, 2]].sum(1) == 3).all()
    assert counts[:, 0].unique().numel() > 1
    assert resamples([], 7, seed=0).shape == (7, 0)


def test_pairing_makes_gains_sharper() -> None:
    random = torch.Generator().manual_seed(0)
    first = torch.rand(300, generator=random)
    counts = resamples(list(torch.arange(300).split(1)), 500, seed=1).double() / 300
    one, other = (Drawn(float(v.mean()), (counts @ v.double()).numpy()) for v in (first, first + 0.1))
    gain = interval(other.minus(one))
    assert gain.low == pytest.approx(0.1)
    assert gain.high == pytest.approx(0.1)
    assert interval(other).high - interval(other).low > 0.05
    assert p_value(other.minus(one)) == pytest.approx(2 / 501)
    assert p_value(one.minus(one)) == 1.0


def test_what_is_not_defined_has_no_interval() -> None:
    draws = np.array([0.5, np.nan, np.nan, 0.6, np.nan])
    assert np.isnan(interval(Drawn(0.5, draws)).low)
    assert np.isnan(p_value(Drawn(0.5, draws)))
    some = interval(Drawn(0.5, np.array([0.5, np.nan, 0.4, 0.6, 0.5])))
    assert (some.undefined, some.known) == (pytest.approx(0.2), True)
    assert not interval(Drawn(float("nan"), draws)).known


def test_holm() -> None:
    """The example of Holm's method: sorted p-values times 4, 3, 2, 1, never falling."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, float("nan"), 0.9])[0] == 1.0
    assert np.isnan(holm([0.5, float("nan")])[1])


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "auc", "average_precision", "f1", "mae", "rmse"])
def test_metrics_of_all_draws_at_once_are_those_of_each(name: str) -> None:
    random = torch.Generator().manual_seed(3)
    regression = name in ("mae", "rmse")
    metric = choose([name], "regression" if regression else "classification", {}, NUMBER if regression else CLASSES)
    counts = resamples(list(torch.arange(40).split(1)), 30, seed=4)
    if regression:
        outputs, targets = torch.randn(40, 1, generator=random), torch.randn(40, generator=random)
    else:  # few values, so that scores are equal; one class in five
        outputs = torch.randint(0, 4, (40, 2), generator=random).float()
        targets = (torch.rand(40, generator=random) < 0.2).long()
    one = metric[name] if name in metric else Accuracy("accuracy")
    found, each = one.on_draws(outputs, targets, counts), Metric.on_draws(one, outputs, targets, counts)
    assert torch.allclose(found, each, equal_nan=True, atol=1e-12)
    assert found.nan_to_num(-1).unique().numel() > 5


def test_a_scaled_error_of_a_draw_is_not_that_of_its_order() -> None:
    """Every row has the naive error of its own time: rows 1 and 2 have errors 2 and 4, and naive errors 10 and 20."""
    metric = choose(["mase"], "regression", {}, NUMBER)["mase"]
    targets, outputs = torch.tensor([0.0, 10.0, 30.0]), torch.tensor([[1.0], [12.0], [34.0]])
    counts = torch.tensor([[1, 1, 1], [0, 3, 0], [0, 1, 2], [3, 0, 0]])
    found = metric.on_draws(outputs, targets, counts)
    assert found[0].item() == pytest.approx(metric(outputs, targets))
    assert found[1:3].tolist() == pytest.approx([2 / 10, (2 + 4 + 4) / (10 + 20 + 20)])
    assert found[3].isnan()  # the first row has none before it


def test_a_draw_without_a_class_has_no_auc() -> None:
    counts = torch.tensor([[1, 1, 1, 1], [2, 2, 0, 0]])
    outputs, targets = torch.tensor([[0.0, 1], [0, 2], [0, 3], [0, 4]]), torch.tensor([0, 0, 1, 1])
    found = choose(["auc"], "classification", {}, CLASSES)["auc"].on_draws(outputs, targets, counts)
    assert found[0] == 1.0
    assert found[1].isnan()
