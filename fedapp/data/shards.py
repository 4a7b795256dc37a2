"""Which clients a SuperNode hosts, and each one's training and validation split."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedapp.data.partition import holdout, partition
from fedapp.data.source import DataSource, Examples, Schema
from fedapp.errors import DataError
from fedapp.seeding import derive_seed

if TYPE_CHECKING:
    from flwr_datasets.partitioner import Partitioner  # type: ignore[import-untyped]

__all__ = ["ClientData", "Moments", "Shards", "hosted_clients", "local_data_path", "moments"]

NodeConfig = Mapping[str, bool | int | float | str]


@dataclass(frozen=True)
class ClientData:
    train: Examples
    validation: Examples


@dataclass(frozen=True)
class Moments:
    """Of each feature of one client's training examples: how many values, their mean, and the sum of squared
    deviations from it. Float64 tensors of shape (features,); missing values (NaN) are not counted."""

    count: Tensor
    mean: Tensor
    squares: Tensor


def hosted_clients(node_config: NodeConfig, node_id: int, num_clients: int) -> list[int]:
    """The ids of the clients that live on this SuperNode.

    A device (`data-path` in its node-config) is one client: `partition-id` where it has one, else its node id. In a
    simulation SuperNode p of P hosts the virtual clients c with c mod P == p. Raises DataError for anything else.
    """
    own = node_config.get("partition-id")
    if "data-path" in node_config:
        return [node_id if own is None else int(own)]
    if own is None or "num-partitions" not in node_config:
        raise DataError(
            "this SuperNode's node-config names no data: start it with --node-config 'data-path=\"/where/it/lies\"',"
            " or for a demonstration with 'partition-id=0 num-partitions=2'"
        )
    number, count = int(own), int(node_config["num-partitions"])
    if not 0 <= number < count:
        raise DataError(f"node-config partition-id={number}: must lie in 0..{count - 1} (num-partitions={count})")
    return list(range(number, num_clients, count))


def local_data_path(node_config: NodeConfig) -> Path | None:
    """The device's own data, from its node-config; None in simulations. Raises DataError for what is not a path."""
    path = node_config.get("data-path")
    if path is not None and not (isinstance(path, str) and path):
        raise DataError(f"node-config data-path={path!r}: must be a path in quotes")
    return Path(str(path)).expanduser() if path else None


class Shards:
    """The data of clients, loaded when first asked for and split into training and validation.

    Simulated data is kept once, in the order of its owners, so that each split is a view and nothing is copied.
    """

    def __init__(
        self,
        source: DataSource,
        schema: Schema,
        partitioner: Callable[[], "Partitioner"],
        *,
        num_clients: int,
        val_fraction: float,
        seed: int,
        path: Path | None = None,
    ) -> None:
        self._source, self._schema, self._partitioner = source, schema, partitioner
        self._num_clients, self._val_fraction, self._seed = num_clients, val_fraction, seed
        self._path = path
        self._pool: Examples | None = None
        self._spans: list[tuple[int, int, int]] = []  # of each client: first row, rows to train on, rows to validate on

    def of(self, client: int) -> ClientData:
        """One client's splits. Raises DataError if they cannot be read or do not fit the schema."""
        if self._pool is None:
            self._load(client)
        assert self._pool is not None
        start, train, validation = self._spans[0 if self._path else client]
        rows = Examples(
            self._pool.inputs[start : start + train + validation],
            self._pool.targets[start : start + train + validation],
        )
        return ClientData(
            Examples(rows.inputs[:train], rows.targets[:train]), Examples(rows.inputs[train:], rows.targets[train:])
        )

    def _load(self, client: int) -> None:
        if self._path is not None:
            examples, owners, name = self._source.local(self._path), None, str(self._path)
        else:
            pooled = self._source.pooled()
            examples, name = pooled.train, type(self._source).__name__
            owners = partition(pooled, self._partitioner(), self._num_clients, derive_seed(self._seed, "partition"))
        examples.check(self._schema, name)
        if owners is None:
            self._arrange(examples, [torch.arange(len(examples))], [client])
        else:
            self._arrange(examples, owners, range(self._num_clients))

    def _arrange(self, examples: Examples, owners: Sequence[Tensor], clients: Sequence[int]) -> None:
        order, start = [], 0
        for client, rows in zip(clients, owners, strict=True):
            train, validation = holdout(len(rows), self._val_fraction, derive_seed(self._seed, "validation", client))
            order += [rows[train], rows[validation]]
            self._spans.append((start, len(train), len(validation)))
            start += len(rows)
        self._pool = examples.take(torch.cat(order))


def moments(examples: Examples) -> Moments:
    """The moments of `examples.inputs` (n, features), for scaling constants agreed through the federation."""
    values = examples.inputs.double()
    known = ~torch.isnan(values)
    count = known.sum(0).double()
    values = torch.where(known, values, 0.0)
    mean = values.sum(0) / count.clamp(min=1)
    squares = torch.where(known, values - mean, 0.0).square().sum(0)
    return Moments(count, mean, squares)
