import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from flwr_datasets import partitioner as partitioners
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedapp.common.errors import ConfigError
from fedapp.data.partition import holdout, partition
from fedapp.data.source import Examples, Pooled

NUM_LABELS = 10


def pooled(num_rows: int, labels: Sequence[int] | Tensor | None = None, **columns: list[Any]) -> Pooled:
    targets = torch.arange(num_rows) % NUM_LABELS if labels is None else torch.as_tensor(labels)
    return Pooled(Examples(torch.zeros(num_rows, 1), targets), columns=columns)


def check_split(owned: list[Tensor], num_rows: int) -> None:
    """Every row has one owner, and each owner's rows are sorted."""
    assert torch.equal(torch.cat(owned).sort().values, torch.arange(num_rows))
    assert all(torch.equal(rows, rows.sort().values) for rows in owned)
    assert all(rows.dtype == torch.int64 for rows in owned)


@settings(max_examples=30, deadline=None)
@given(num_rows=st.integers(1, 300), num_clients=st.integers(1, 300), seed=st.integers(0, 2**31))
def test_iid_shares_are_equal(num_rows: int, num_clients: int, seed: int) -> None:
    num_clients = min(num_clients, num_rows)
    owned = partition(pooled(num_rows), partitioners.IidPartitioner(num_clients), num_clients, seed)
    check_split(owned, num_rows)
    sizes = [len(rows) for rows in owned]
    assert max(sizes) - min(sizes) <= 1


def test_iid_is_shuffled() -> None:
    in_blocks = pooled(1000, torch.arange(1000) // 100)
    for rows in partition(in_blocks, partitioners.IidPartitioner(10), 10):
        assert len(in_blocks.train.targets[rows].unique()) >= 8


def test_dirichlet_skews_labels_more_for_small_alpha() -> None:
    def labels_per_client(alpha: float) -> float:
        made = partitioners.DirichletPartitioner(20, "label", alpha, min_partition_size=5, shuffle=False, seed=0)
        owned = partition(pooled(4000), made, 20)
        check_split(owned, 4000)
        assert min(len(rows) for rows in owned) >= 5
        return float(np.mean([len((rows % NUM_LABELS).unique()) for rows in owned]))

    assert labels_per_client(0.1) < 7 < labels_per_client(100.0)


@settings(max_examples=30, deadline=None)
@given(num_labels=st.integers(1, NUM_LABELS), num_clients=st.integers(NUM_LABELS, 40), seed=st.integers(0, 1000))
def test_pathological_gives_each_client_so_many_labels(num_labels: int, num_clients: int, seed: int) -> None:
    made = partitioners.PathologicalPartitioner(
        num_clients, "label", num_labels, "first-deterministic", shuffle=False, seed=seed
    )
    owned = partition(pooled(1000), made, num_clients, seed)
    check_split(owned, 1000)
    assert [len((rows % NUM_LABELS).unique()) for rows in owned] == [num_labels] * num_clients


def test_size_skew_grows_with_the_client() -> None:
    owned = partition(pooled(5500), partitioners.LinearPartitioner(10), 10)
    check_split(owned, 5500)
    assert [len(rows) for rows in owned] == pytest.approx([100 * client for client in range(1, 11)], abs=10)


def test_natural_follows_the_column(caplog: pytest.LogCaptureFixture) -> None:
    data = pooled(6, site=["south", "north", "south", "west", "north", "south"])
    natural = partitioners.NaturalIdPartitioner
    owned = partition(data, natural("site"), 3)
    assert [rows.tolist() for rows in owned] == [[1, 4], [0, 2, 5], [3]]
    assert not caplog.records
    owned = partition(data, natural("site"), 2)
    assert [rows.tolist() for rows in owned] == [[1, 4], [0, 2, 5]]
    assert "NaturalIdPartitioner leaves 1 of 6 examples to no client" in caplog.text


def test_partitioners_that_sort_the_data() -> None:
    shards = partitioners.ShardPartitioner(10, "label", num_shards_per_partition=2, shuffle=False, seed=0)
    owned = partition(pooled(1000), shards, 10)
    check_split(owned, 1000)
    assert max(len((rows % NUM_LABELS).unique()) for rows in owned) <= 2
    by_age = partitioners.ContinuousPartitioner(4, "age", strictness=1.0, shuffle=False, seed=0)
    data = pooled(100, age=[float(99 - row) for row in range(100)])
    assert all(int(b.max()) < int(a.min()) for a, b in pairwise(partition(data, by_age, 4)))


def test_same_seed_same_split() -> None:
    def split(seed: int, kind: str) -> list[list[int]]:
        made = (
            partitioners.IidPartitioner(7)
            if kind == "iid"
            else partitioners.DirichletPartitioner(7, "label", 0.5, 5, seed=seed)
        )
        return [rows.tolist() for rows in partition(pooled(500), made, 7, seed)]

    for kind in ("iid", "dirichlet"):
        assert split(3, kind) == split(3, kind)
        assert split(4, kind) != split(3, kind)


def test_global_generators_are_left_alone() -> None:
    def states() -> tuple[Any, ...]:
        return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()

    before = states()
    partition(pooled(500), partitioners.DirichletPartitioner(7, "label", 0.5, 5, seed=0), 7)
    holdout(100, 0.5, 0)
    assert states() == before


def test_many_clients_of_one_row_each() -> None:
    owned = partition(pooled(2000), partitioners.IidPartitioner(2000), 2000)
    check_split(owned, 2000)


@pytest.mark.parametrize(
    ("made", "num_clients", "expected"),
    [
        (partitioners.IidPartitioner(31), 31, "federation.num_clients=31: there are only 30 training examples"),
        (partitioners.IidPartitioner(2), 3, "federation.num_clients=3: IidPartitioner makes only 2 partitions"),
        (partitioners.NaturalIdPartitioner("site"), 4, "federation.num_clients=4: NaturalIdPartitioner makes only 3"),
        (partitioners.NaturalIdPartitioner("ward"), 2, "partition.partition_by='ward': the data have no such column"),
        (partitioners.DirichletPartitioner(2, "ward", 1.0), 2, "partition.partition_by='ward'"),
        (partitioners.DirichletPartitioner(10, "label", 0.1, 10), 10, "partition: DirichletPartitioner cannot"),
        (partitioners.PathologicalPartitioner(2, "label", 11), 2, "partition: PathologicalPartitioner cannot split 30"),
        (partitioners.PathologicalPartitioner(30, "label", 9), 30, "partition: PathologicalPartitioner cannot split"),
        (partitioners.LinearPartitioner(20), 20, "partition: LinearPartitioner cannot split 30 examples over"),
        (partitioners.DirichletPartitioner(25, "label", 0.1, 0, seed=0), 25, "partition: DirichletPartitioner gives"),
        (partitioners.IidPartitioner(1), 0, "federation.num_clients=0: must be at least 1"),
    ],
)
def test_impossible_splits(made: Any, num_clients: int, expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        partition(pooled(30, site=["a", "b", "c"] * 10), made, num_clients)
    told = str(raised.value)
    assert told.startswith(expected)
    assert num_clients == 0 or "et federation.num_clients=" in told or "partition=iid" in told


def test_a_column_that_is_missing_is_answered_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"they have 'label', 'site'\. Choose one of them"):
        partition(pooled(2, site=["a", "b"]), partitioners.NaturalIdPartitioner("ward"), 2)
    regression = Pooled(Examples(torch.zeros(4, 1), torch.rand(4)))
    with pytest.raises(ConfigError, match=r"partition_by='label'.* they have 'target'"):
        partition(regression, partitioners.DirichletPartitioner(2, "label", 1.0), 2)
    with pytest.raises(ConfigError, match=r"^data\.group='label': partitioners know another column by this name"):
        partition(pooled(2, label=["a", "b"]), partitioners.IidPartitioner(2), 2)


def test_an_example_with_two_owners_is_refused() -> None:
    class Greedy(partitioners.IidPartitioner):  # type: ignore[misc]
        def load_partition(self, partition_id: int) -> Any:
            return self.dataset.select([0, partition_id])

    with pytest.raises(ConfigError, match=r"^partition: Greedy gives an example to several clients"):
        partition(pooled(10), Greedy(3), 3)


@given(num=st.integers(0, 500), fraction=st.floats(0, 0.99), seed=st.integers(0, 2**63 - 1))
def test_holdout(num: int, fraction: float, seed: int) -> None:
    train, validation = holdout(num, fraction, seed)
    assert torch.equal(torch.cat([train, validation]).sort().values, torch.arange(num))
    assert len(train) >= min(num, 1)
    assert num * fraction - 1 - 1e-6 <= len(validation) <= num * fraction + 1e-6
    again = holdout(num, fraction, seed)
    assert torch.equal(train, again[0])
    assert torch.equal(validation, again[1])


def test_holdout_counts_and_seeds() -> None:
    assert [len(part) for part in holdout(100, 0.29, 0)] == [71, 29]
    assert [len(part) for part in holdout(1, 0.9, 0)] == [1, 0]
    assert not torch.equal(holdout(100, 0.5, 0)[0], holdout(100, 0.5, 1)[0])
    with pytest.raises(ConfigError, match=r"^train\.val_fraction=1\.0: must be at least 0"):
        holdout(10, 1.0, 0)
