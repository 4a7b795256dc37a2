"""The split of pooled data over the clients of a simulation, by the partitioners of Flower Datasets."""

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fedapp.common.errors import ConfigError
from fedapp.data.checks import known
from fedapp.data.source import Examples, Pooled
from fedapp.data.whole_groups import group_rows

if TYPE_CHECKING:
    from datasets import Dataset  # type: ignore[import-untyped]
    from flwr_datasets.partitioner import Partitioner  # type: ignore[import-untyped]

__all__ = ["columns_of", "holdout", "partition"]

log = logging.getLogger(__name__)


def holdout(num_examples: int, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """A client's examples as sorted (training indices, validation indices), a function of the arguments alone.

    floor(num_examples · fraction) go to validation, but never all of them.
    """
    if not 0 <= fraction < 1:
        raise ConfigError(f"train.val_fraction={fraction}: must be at least 0 (no validation) and below 1")
    # Rounded first: 0.29 * 100 is 28.999999999999996 in floating point.
    num_validation = min(math.floor(round(num_examples * fraction, 9)), max(num_examples - 1, 0))
    order = torch.randperm(num_examples, generator=torch.Generator().manual_seed(seed))
    return order[num_validation:].sort().values, order[:num_validation].sort().values


def partition(pooled: Pooled, partitioner: "Partitioner", num_clients: int, seed: int = 0) -> list[Tensor]:
    """For each client the sorted rows of `pooled.train` that it owns; no row has two owners, no client has none.

    The partitioner sees the rows in an order that `seed` shuffles, and may split by the columns `label` (`target`
    for regression), `row`, and those of `pooled.columns`. If it makes more partitions than `num_clients`, as a
    natural one may, the first ones are used. Examples of one group go to one client. Raises ConfigError where the split
    cannot be made.
    """
    if pooled.train.groups is not None:
        return _whole(pooled, partitioner, num_clients, seed)
    num_rows = len(pooled.train)
    if num_clients < 1:
        raise ConfigError(f"federation.num_clients={num_clients}: must be at least 1")
    if num_clients > num_rows:
        raise ConfigError(
            f"federation.num_clients={num_clients}: there are only {num_rows} training examples or groups, and each"
            f" client needs one. Set federation.num_clients={num_rows} or less, or give more data"
        )
    order = torch.randperm(num_rows, generator=torch.Generator().manual_seed(seed)).numpy()
    columns = {name: values[order] for name, values in columns_of(pooled).items()}
    owned = _load_partitions(partitioner, columns, num_clients)
    _check_owners(owned, num_rows, type(partitioner).__name__)
    return [torch.from_numpy(np.sort(rows)) for rows in owned]


def _whole(pooled: Pooled, partitioner: "Partitioner", num_clients: int, seed: int) -> list[Tensor]:
    """The groups split as if each were one example, of the class of most of its examples."""
    rows = group_rows(pooled.train)
    first = torch.stack([group[0] for group in rows])
    targets = pooled.train.targets[first]
    if not targets.is_floating_point() and targets.dim() == 1:
        targets = torch.stack([torch.mode(pooled.train.targets[group]).values for group in rows])
    columns: dict[str, list[Any]] = {}
    for name, values in pooled.columns.items():
        columns[name] = [values[int(group[0])] for group in rows]
        if getattr(partitioner, "_partition_by", None) == name:
            _check_undivided(name, values, rows)
    owned = partition(
        Pooled(Examples(pooled.train.inputs[first], targets), None, columns), partitioner, num_clients, seed
    )
    return [torch.cat([rows[group] for group in groups.tolist()]).sort().values for groups in owned]


def _check_undivided(name: str, values: Sequence[object], rows: Sequence[Tensor]) -> None:
    for group in rows:
        found = sorted({str(values[row]) for row in group.tolist()})
        if len(found) > 1:
            raise ConfigError(
                f"data.split_by: a group has examples of {known(found)} in the column {name!r}, by which clients are"
                " split. Correct the data, or set data.split_by=null or another partition"
            )


def columns_of(pooled: Pooled) -> dict[str, Any]:
    """What a partitioner can split by, as one array a column. Targets are a column where each is one value."""
    targets = pooled.train.targets
    columns = {"row": np.arange(len(targets))}
    if targets.dim() == 1:
        columns["target" if targets.is_floating_point() else "label"] = targets.numpy()
    for name, values in pooled.columns.items():
        if name in columns:
            raise ConfigError(f"data.group={name!r}: partitioners know another column by this name. Rename the column")
        columns[name] = np.asarray(values)
    return columns


def _load_partitions(partitioner: "Partitioner", columns: Mapping[str, Any], num_clients: int) -> list[Any]:
    kind = type(partitioner).__name__
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            # They tell of retries, which are no fault, and of rows left out, which _check_owners logs in any case; and
            # some draw a progress bar that lasts no time.
            warnings.simplefilter("ignore")
            partitioner.dataset = _as_dataset(columns)
            num_partitions = partitioner.num_partitions
            if num_partitions >= num_clients:
                return [np.asarray(partitioner.load_partition(client)["row"]) for client in range(num_clients)]
    except ConfigError:
        raise
    except Exception as error:  # partitioners raise ValueError, KeyError, AssertionError and more
        raise ConfigError(
            f"partition: {kind} cannot split {len(columns['row'])} examples over federation.num_clients={num_clients}:"
            f" {error}. Set fewer clients, a milder setting of conf/partition/, or partition=iid"
        ) from error
    raise ConfigError(
        f"federation.num_clients={num_clients}: {kind} makes only {num_partitions} partitions of this data."
        f" Set federation.num_clients={num_partitions} or less, or another partition, such as partition=iid"
    )


def _check_owners(owned: Sequence[Any], num_rows: int, kind: str) -> None:
    for client, rows in enumerate(owned):
        if not len(rows):
            raise ConfigError(
                f"partition: {kind} gives client {client} of {len(owned)} no example. Set fewer clients"
                " (federation.num_clients), a higher partition.min_partition_size, or partition=iid"
            )
    rows = np.concatenate(owned)
    if len(np.unique(rows)) < len(rows):
        raise ConfigError(f"partition: {kind} gives an example to several clients. Use a partitioner that splits rows")
    if len(rows) < num_rows:
        log.warning("partition: %s leaves %d of %d examples to no client", kind, num_rows - len(rows), num_rows)


def _as_dataset(columns: Mapping[str, Any]) -> "Dataset":
    """`columns` as the `datasets.Dataset` that partitioners ask for."""
    import pyarrow as pa  # type: ignore[import-untyped]
    from datasets import Dataset

    class ArrayDataset(Dataset):  # type: ignore[misc]
        """A Dataset whose columns are read as arrays, since the stock one hands partitioners a value at a time and
        writes indices per selection: minutes for a million rows and ten thousand clients, instead of seconds."""

        def __init__(self, arrays: Mapping[str, Any]) -> None:
            super().__init__(pa.table(dict(arrays)), fingerprint="rows")
            self.arrays = arrays

        def __getitem__(self, key: Any) -> Any:
            if not isinstance(key, str):
                return super().__getitem__(key)
            if key not in self.arrays:
                others = known([name for name in self.arrays if name != "row"])
                what = "the data have no such column"
                if key == "label" and "target" not in self.arrays:
                    what = "an example has several labels at once, so that no one of them splits the data"
                raise ConfigError(
                    f"partition.partition_by={key!r}: {what}; they have {others}. Choose one of"
                    " them, name a further one in data.group, or set partition=iid"
                )
            return self.arrays[key]

        def unique(self, column: str) -> list[Any]:
            return list(np.unique(self[column]).tolist())

        def select(self, indices: Any, *args: Any, **kwargs: Any) -> "ArrayDataset":
            chosen = np.asarray(indices, dtype=np.int64)
            return ArrayDataset({name: values[chosen] for name, values in self.arrays.items()})

    return ArrayDataset(columns)
