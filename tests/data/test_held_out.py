import pytest
import torch

from fedapp.common.errors import ConfigError, DataError
from fedapp.data.held_out import hold_out
from fedapp.data.source import Examples
from fedapp.data.sources.embedded import Digits


def numbered(targets: list[int] | list[float]) -> Examples:
    return Examples(torch.arange(len(targets)).unsqueeze(1).float(), torch.tensor(targets))


def test_columns_follow_their_rows() -> None:
    pooled = hold_out(numbered([0, 1] * 10), fraction=0.3, seed=0, name="x", columns={"site": [*range(20)]})
    assert pooled.columns["site"] == pooled.train.inputs[:, 0].int().tolist()
    assert pooled.test is not None
    rows = pooled.train.inputs[:, 0].tolist() + pooled.test.inputs[:, 0].tolist()
    assert sorted(rows) == list(range(20))
    assert pooled.test.targets.sum() == 3  # half of 6: stratified


@pytest.mark.parametrize("targets", [[0, 0, 0, 0, 1], [0.5, 1.5, 2.5, 3.5, 4.5], [0, 1, 2, 3, 4]])
def test_splits_at_random_where_classes_are_too_small(targets: list[float]) -> None:
    pooled = hold_out(numbered(targets), fraction=0.2, seed=0, name="x")
    assert pooled.test is not None
    assert (len(pooled.train), len(pooled.test)) == (4, 1)


def test_refuses_to_leave_no_training_data() -> None:
    with pytest.raises(DataError, match=r"^table\.csv: 1 examples are too few .*data\.test_fraction=0"):
        hold_out(numbered([0]), fraction=0.2, seed=0, name="table.csv")


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_refuses_a_fraction_outside_its_range(fraction: float) -> None:
    with pytest.raises(ConfigError, match=r"^data\.test_fraction=.*below 1"):
        Digits(test_fraction=fraction)
