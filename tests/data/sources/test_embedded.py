import re

import torch

from fedapp.data.source import DataSource, Scaling
from fedapp.data.sources.embedded import RANGES, BreastCancer, Digits
from fedapp.models.input_layer import InputLayer


def check_fits(source: DataSource, total: int) -> None:
    pooled, schema = source.pooled(), source.schema()
    assert pooled.test is not None
    pooled.train.check(schema, "train")
    pooled.test.check(schema, "test")
    assert len(pooled.train) + len(pooled.test) == total


def test_digits() -> None:
    source = Digits()
    check_fits(source, 1797)
    train = source.pooled().train
    assert train.inputs.dtype == torch.float32
    assert (float(train.inputs.min()), float(train.inputs.max())) == (0.0, 16.0)
    assert source.schema().scaling == Scaling("fixed", 0.0, 16.0)


def test_breast_cancer_names_match_scikit_learn() -> None:
    from sklearn.datasets import load_breast_cancer

    source, bunch = BreastCancer(), load_breast_cancer()
    check_fits(source, 569)
    assert source.schema().features == tuple(bunch.feature_names)
    assert source.schema().classes == tuple(bunch.target_names)
    assert source.schema().scaling.kind == "federated"


def test_split_is_stratified_and_depends_on_its_seed_alone() -> None:
    first, again, other = Digits().pooled(), Digits().pooled(), Digits(split_seed=1).pooled()
    assert torch.equal(first.train.inputs, again.train.inputs)
    assert not torch.equal(first.train.targets, other.train.targets)
    assert first.test is not None
    counts = first.test.targets.bincount(minlength=10)
    assert int(counts.max() - counts.min()) <= 2


def test_no_test_data_for_fraction_zero() -> None:
    pooled = Digits(test_fraction=0.0).pooled()
    assert pooled.test is None
    assert len(pooled.train) == 1797


def test_published_ranges_are_those_of_the_description() -> None:
    from sklearn.datasets import load_breast_cancer

    table = re.findall(r"^\s*\w[\w ()]*:\s+([\d.]+)\s+([\d.]+)\s*$", load_breast_cancer().DESCR, flags=re.MULTILINE)
    assert tuple((float(low), float(high)) for low, high in table) == RANGES


def test_published_scaling_needs_nothing_from_clients() -> None:
    schema = BreastCancer(scaling="published").schema()
    assert schema.scaling.kind == "fixed"
    layer = InputLayer(schema)
    scaled = layer(BreastCancer().pooled().train.inputs)
    assert scaled.abs().max() <= 2.1
    assert scaled.std(0).min() > 0.2
