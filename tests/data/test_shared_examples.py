"""Examples that one process has loaded are the same ones for another, which copies only what it writes to."""

import os
from pathlib import Path

import pytest
import torch

from fedapp.config import compose
from fedapp.data.shards import Shards
from fedapp.data.shared_examples import keep_shards, share_shards, take_kept, take_shards
from fedapp.learning.build import build_parts
from fedapp.learning.build_shards import build_shards, examples_key

DATA = [
    "data=digits",
    "data=breast_cancer model=mlp",
    "data=synthetic data.shape=[1,8,8] data.num_examples=50 data.test_examples=5"
    " federation.num_clients=50 partition=iid",
]


def shards_of(overrides: str) -> Shards:
    config = compose(overrides.split())
    return build_shards(config, build_parts(config))


@pytest.mark.parametrize("overrides", DATA)
def test_they_are_the_same(overrides: str) -> None:
    loaded, mapped = shards_of(overrides), shards_of(overrides)
    descriptor = share_shards(loaded)
    take_shards(mapped, os.dup(descriptor))
    os.close(descriptor)
    spans = loaded.loaded()[1]
    assert mapped.loaded()[1] == spans
    for client in range(len(spans)):
        for one, other in zip(vars(loaded.of(client)).values(), vars(mapped.of(client)).values(), strict=True):
            assert torch.equal(one.inputs, other.inputs)
            assert torch.equal(one.targets, other.targets)
            assert one.inputs.dtype == other.inputs.dtype


def test_those_that_are_kept_are_taken_by_key(tmp_path: Path) -> None:
    loaded, other = shards_of("data=digits"), shards_of("data=digits")
    keep_shards(loaded, tmp_path, "one")
    take_kept(other, tmp_path, "two")
    assert other._pool is None
    take_kept(other, tmp_path, "one")
    assert other._pool is not None
    assert torch.equal(other.of(3).train.inputs, loaded.of(3).train.inputs)
    assert [path.name for path in tmp_path.iterdir()] == ["one.examples"]


@pytest.mark.parametrize("change", ["run.seed=1", "partition.alpha=9", "train.val_fraction=0.3", "data.shape=[1,4,4]"])
def test_another_split_has_another_key(change: str) -> None:
    data = ["data=synthetic", "data.shape=[1,8,8]"]
    assert examples_key(compose([*data, change])) != examples_key(compose(data))


def test_a_file_that_has_changed_has_another_key(tmp_path: Path) -> None:
    config = compose(["data=csv", f"data.path={tmp_path}/t.csv", "data.label=y"])
    keys = set()
    for rows in range(3):
        (tmp_path / "t.csv").write_text("x,y\n" + "1,2\n" * rows)
        keys.add(examples_key(config))
    assert len(keys) == 3


def test_whoever_writes_writes_to_a_copy() -> None:
    loaded, first, second = (shards_of("data=digits") for _ in range(3))
    descriptor = share_shards(loaded)
    for shards in (first, second):
        take_shards(shards, os.dup(descriptor))
    os.close(descriptor)
    first.of(0).train.inputs.fill_(7)
    assert torch.equal(second.of(0).train.inputs, loaded.of(0).train.inputs)
