"""From config to clients' examples: of a simulation's table its split, on a device its own."""

import json
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from fedapp.common.quick_import import quick_import
from fedapp.common.seeding import derive_seed
from fedapp.config import Config, instantiate
from fedapp.data.partition import columns_of, partition
from fedapp.data.shards import Shards, data_version
from fedapp.data.shared_examples import take_kept
from fedapp.data.source import Pooled
from fedapp.data.splits import Rows, kept_split, split_key, splits_folder
from fedapp.flower.plotless_datasets import import_flower_datasets
from fedapp.learning.build import Parts

__all__ = [
    "build_shards",
    "examples_key",
]


def build_shards(config: Config, parts: Parts, path: Path | None = None, *, splits: Path | None = None) -> Shards:
    """`splits`: the folder in which split and examples are kept for other processes; what the environment names unless
    given."""
    num_clients, seed = config.federation.num_clients, derive_seed(config.run.seed, "partition")

    def split(pooled: Pooled) -> list[Tensor]:
        def make() -> list[Rows]:
            with quick_import():
                import_flower_datasets()  # the partitioners are there
            partitioner = instantiate("partition", config.partition)
            return [rows.numpy() for rows in partition(pooled, partitioner, num_clients, seed)]

        settings = {"partition": config.partition, "num_clients": num_clients, "seed": seed}
        folder = splits or splits_folder()
        seen = columns_of(pooled) | {"\0groups": [] if pooled.train.groups is None else pooled.train.groups.numpy()}
        owners = kept_split(folder, split_key(settings, seen), make) if folder is not None else make()
        return [torch.from_numpy(rows) for rows in owners]

    fraction = config.train.val_fraction
    shards = Shards(parts.source, parts.task.check, split, val_fraction=fraction, seed=config.run.seed, path=path)
    if path is None and (folder := splits or splits_folder()) is not None:
        take_kept(shards, folder, examples_key(config))
    return shards


def examples_key(config: Config) -> str:
    """Another text for whatever changes the examples of a simulation's clients."""
    files = [data_version(Path(path)) for key in ("path", "test_path") if (path := config.data.get(key))]
    settings = [
        config.data,
        config.partition,
        config.federation.num_clients,
        config.train.val_fraction,
        config.run.seed,
    ]
    return sha256(json.dumps([settings, files], sort_keys=True).encode()).hexdigest()
