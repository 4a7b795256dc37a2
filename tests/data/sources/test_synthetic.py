from typing import Any

import pytest
import torch

from fedapp.common.errors import ConfigError
from fedapp.data.sources.synthetic import Synthetic


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9), (30,)])
@pytest.mark.parametrize("num_classes", [None, 2, 7])
def test_examples_fit_their_schema(shape: tuple[int, ...], num_classes: int | None) -> None:
    source = Synthetic(shape=shape, num_examples=500, num_classes=num_classes, test_examples=90)
    pooled, schema = source.pooled(), source.schema()
    assert pooled.test is not None
    pooled.train.check(schema, "train")
    pooled.test.check(schema, "test")
    assert (len(pooled.train), len(pooled.test)) == (500, 90)
    assert schema.kind == ("regression" if num_classes is None else "classification")
    if num_classes is not None:
        assert pooled.train.targets.unique().tolist() == list(range(num_classes))


def test_it_depends_on_its_arguments_alone() -> None:
    first, again, other = (Synthetic(num_examples=50, seed=seed).pooled() for seed in (0, 0, 1))
    assert torch.equal(first.train.inputs, again.train.inputs)
    assert torch.equal(first.train.targets, again.train.targets)
    assert not torch.equal(first.train.inputs, other.train.inputs)
    assert first.test is not None
    assert not torch.equal(first.train.inputs, first.test.inputs[:50])


def test_classes_lie_apart_by_what_was_asked() -> None:
    train = Synthetic(shape=(2, 5), num_examples=20_000, num_classes=3, separation=6.0).pooled().train
    inputs = train.inputs.flatten(1)
    for k in range(3):
        mine = inputs[train.targets == k]
        assert float(mine.mean(0).norm()) == pytest.approx(6.0, abs=0.1)
        assert float((mine - mine.mean(0)).std()) == pytest.approx(1.0, abs=0.02)


def test_a_regression_target_is_linear_in_its_inputs_but_for_noise() -> None:
    train = Synthetic(shape=(4,), num_examples=20_000, num_classes=None, separation=3.0).pooled().train
    found = torch.linalg.lstsq(train.inputs, train.targets[:, None]).solution
    assert float(found.norm()) == pytest.approx(3.0, abs=0.05)
    assert float((train.targets - (train.inputs @ found)[:, 0]).std()) == pytest.approx(1.0, abs=0.03)


def test_no_test_data_on_request() -> None:
    assert Synthetic(test_examples=0).test() is None
    assert Synthetic(test_examples=0, num_examples=10).pooled().test is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shape", ()),
        ("shape", (1, 0)),
        ("num_examples", 0),
        ("num_classes", 1),
        ("test_examples", -1),
        ("separation", -0.1),
        ("separation", float("nan")),
    ],
)
def test_what_is_no_data_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"data.{key}="):
        Synthetic(**{key: value})
