"""Which clients a SuperNode hosts, and each one's training and validation split."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from fedapp.common.errors import DataError
from fedapp.common.seeding import derive_seed
from fedapp.data.partition import holdout
from fedapp.data.source import DataSource, Examples, Pooled
from fedapp.data.whole_groups import split_whole

__all__ = [
    "ClientData",
    "Moments",
    "Shards",
    "Split",
    "data_version",
    "hosted_clients",
    "local_data_path",
    "moments",
    "num_partitions",
    "plays_helper",
]

NodeConfig = Mapping[str, bool | int | float | str]
# Examples in the order of their owners, and of each client its span: training rows a..b, validation rows b..c.
Split = tuple[Examples, list[tuple[int, int, int]]]


@dataclass(frozen=True)
class ClientData:
    train: Examples
    validation: Examples

    def sha256(self) -> str:
        return sha256(f"{self.train.sha256()}{self.validation.sha256()}".encode()).hexdigest()


@dataclass(frozen=True)
class Moments:
    """Of each feature of one client's training examples: how many values, their mean, and the sum of squared
    deviations from it. Float64 tensors of shape (features,); missing values (NaN) are not counted."""

    count: Tensor
    mean: Tensor
    squares: Tensor


def hosted_clients(node_config: NodeConfig, node_id: int, num_clients: int, helpers: int = 0) -> list[int]:
    """The ids of the clients that live on this SuperNode.

    A device (`data-path` in its node-config) is one client: `partition-id` where it has one, else its node id. In a
    simulation SuperNode p of P hosts the virtual clients c with c mod P == p; the last `helpers` of all play helper
    sites and count in no P. Raises DataError for anything else.
    """
    own = node_config.get("partition-id")
    if "data-path" in node_config:
        return [node_id if own is None else int(own)]
    if own is None or "num-partitions" not in node_config:
        raise DataError(
            "this SuperNode's node-config names no data: start it with --node-config 'data-path=\"/where/it/lies\"',"
            " or for a demonstration with 'partition-id=0 num-partitions=2'"
        )
    number, count = int(own), int(node_config["num-partitions"]) - helpers
    if helpers and count < 1:
        raise DataError(
            f"{count + helpers} SuperNodes (num-partitions): beside those with data this run needs {helpers} to play"
            f' helper sites; start {1 + helpers} or more (flwr run: --federation-config "num-supernodes={1 + helpers}")'
        )
    if not 0 <= number < count:
        raise DataError(f"node-config partition-id={number}: must lie in 0..{count - 1} (num-partitions={count})")
    return list(range(number, num_clients, count))


def local_data_path(node_config: NodeConfig) -> Path | None:
    """The device's own data, from its node-config; None in simulations. Raises DataError for what is not a path."""
    path = node_config.get("data-path")
    if path is not None and not (isinstance(path, str) and path):
        raise DataError(f"node-config data-path={path!r}: must be a path in quotes")
    return Path(str(path)).expanduser() if path else None


def data_version(path: Path | None) -> str:
    """Another text whenever a file at or below `path` has changed, by name, size and time; "" where there is none."""
    if path is None:
        return ""
    digest = sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        try:
            found = file.stat()
        except OSError:
            continue
        digest.update(f"{file}|{found.st_size}|{found.st_mtime_ns}|{found.st_ino}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def num_partitions(node_config: NodeConfig, helpers: int = 0) -> int:
    """How many SuperNodes share the data of a simulation, without its `helpers`; 0 for a device with its own data."""
    return 0 if "data-path" in node_config else max(0, int(node_config.get("num-partitions", 0)) - helpers)


def plays_helper(node_config: NodeConfig, helpers: int) -> bool:
    """Whether this SuperNode of a simulation is one of its last `helpers`, which play helper sites."""
    if "data-path" in node_config or "num-partitions" not in node_config:
        return False
    count = int(node_config["num-partitions"])
    return helpers < count <= int(node_config.get("partition-id", 0)) + helpers


class Shards:
    """The data of clients, loaded when first asked for and split into training and validation.

    `check` refuses examples that do not fit the task, by a DataError that opens with the name that it is given. `split`
    says which rows of pooled data each client of a simulation owns. That data is kept once, in the order of its
    owners, so that each client's part is a view and nothing is copied.
    """

    def __init__(
        self,
        source: DataSource,
        check: Callable[[Examples, str], Examples],
        split: Callable[[Pooled], list[Tensor]],
        *,
        val_fraction: float,
        seed: int,
        path: Path | None = None,
    ) -> None:
        self._source, self._check, self._split = source, check, split
        self._val_fraction, self._seed, self._path = val_fraction, seed, path
        self._pool: Examples | None = None
        self._spans: list[tuple[int, int, int]] = []  # of each client: training rows a..b, validation rows b..c
        self._rows: Tensor | None = None  # of the data set, in the order of the pool

    @property
    def is_pooled(self) -> bool:
        """Whether this is a simulation's data, whose faults are of no client in particular."""
        return self._path is None

    def load(self) -> None:
        """Load the data if that has not been done. Raises FedappError if it does not fit or cannot be split."""
        if self._pool is not None:
            return
        if self._path is not None:
            examples, name = self._source.local(self._path), str(self._path)
            owners = [torch.arange(len(examples))]
        else:
            pooled = self._source.pooled()
            examples, name = pooled.train, type(self._source).__name__
            owners = self._split(pooled)
        self._check(examples, name)
        order, start = [], 0
        for number, rows in enumerate(owners):
            seed = derive_seed(self._seed, "validation", number)
            if self._val_fraction and (examples.groups is not None or examples.times is not None):
                train, validation = split_whole(examples.take(rows), self._val_fraction, seed)
            else:
                train, validation = holdout(len(rows), self._val_fraction, seed)
            order += [rows[train], rows[validation]]
            self._spans.append((start, start + len(train), start + len(rows)))
            start += len(rows)
        self._rows = torch.cat(order)
        self._pool = Examples(examples.inputs, examples.targets).take(self._rows)

    def loaded(self) -> Split:
        """All examples in the order of their owners, and of each client where its training rows start, where these end
        and its validation rows start, and where those end. Raises FedappError as `load` does."""
        self.load()
        assert self._pool is not None
        return self._pool, self._spans

    def rows(self) -> Tensor:
        """(n,) of each example in `loaded`'s order, its row in the data set. Of data that this process has split."""
        self.load()
        assert self._rows is not None
        return self._rows

    def adopt(self, pool: Examples, spans: list[tuple[int, int, int]]) -> None:
        """Take what `loaded` gave in another process, instead of loading it."""
        self._pool, self._spans = pool, spans

    def of(self, client: int) -> ClientData:
        """One client's splits; on a device there is one client, whatever its id. Raises FedappError as `load` does."""
        pool, spans = self.loaded()
        if self.is_pooled and not 0 <= client < len(spans):
            raise DataError(f"client {client} does not live here")
        start, middle, end = spans[client if self.is_pooled else 0]
        return ClientData(pool.span(start, middle), pool.span(middle, end))


def moments(values: Tensor) -> Moments:
    """The moments of `values` (n, features), for constants agreed through the federation."""
    values = values.double()
    known = ~torch.isnan(values)
    count = known.sum(0).double()
    values = torch.where(known, values, 0.0)
    mean = values.sum(0) / count.clamp(min=1)
    squares = torch.where(known, values - mean, 0.0).square().sum(0)
    return Moments(count, mean, squares)
