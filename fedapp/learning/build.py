"""From config to objects: where config values become data, task and model, alike on server and clients."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from inspect import isclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from fedapp.common.errors import ConfigError
from fedapp.common.quick_import import quick_import
from fedapp.common.seeding import derive_seed, seeded
from fedapp.common.state_digest import state_sha256
from fedapp.config import Config, instantiate
from fedapp.data.augmentation import augmentation
from fedapp.data.partition import columns_of, partition
from fedapp.data.shards import Shards
from fedapp.data.source import DataSource, Pooled, Schema
from fedapp.data.splits import Rows, kept_split, split_key, splits_folder
from fedapp.flower.plotless_datasets import import_flower_datasets
from fedapp.learning.metrics import choose
from fedapp.learning.optimizer_step import make_optimizer
from fedapp.learning.task import Task
from fedapp.models.fit import check_fits
from fedapp.models.input_layer import assemble
from fedapp.models.shared_state import frozen_state, make_personal, shared_state
from fedapp.models.transfer import last_linear, split

__all__ = [
    "Parts",
    "build_model",
    "build_parts",
    "build_shards",
    "build_source",
    "check_optimizer",
    "optimizer_factory",
]


@dataclass(frozen=True)
class Parts:
    """What server and clients both have: the data set, the task, and the model at its initial state.

    `whole` takes examples. `model` is the part of it that is trained: all, or what works on the output of `frozen`.
    """

    source: DataSource
    task: Task
    whole: nn.Module
    frozen: nn.Module | None
    model: nn.Module

    @property
    def backbone(self) -> str:
        """SHA-256 of what server and clients must have alike because it never travels; "" where all does."""
        fixed = frozen_state(self.model) | (self.frozen.state_dict() if self.frozen is not None else {})
        return state_sha256(fixed) if fixed else ""


def build_parts(config: Config) -> Parts:
    """Raises ConfigError or DataError for whatever cannot work, before anything starts."""
    for key in ("path", "test_path"):
        if (path := config.data.get(key)) and not Path(path).expanduser().is_absolute():
            raise ConfigError(f"data.{key}={path}: must be an absolute path, since server and clients start elsewhere")
    source = build_source(config.data)
    schema = source.schema()
    metrics = choose(config.task.metrics, classification=schema.is_classification)
    if config.federation.target_accuracy is not None and "accuracy" not in metrics:
        raise ConfigError("federation.target_accuracy: needs a classification task, this one is a regression")
    with seeded(config.run.seed, "model"):
        whole = build_model(config.model, schema)
    check_fits(whole, schema)
    augmentation(config.train.augmentation, schema)  # what is wrong with it is said now
    frozen, model = split(whole)
    if schema.scaling.kind == "federated" and not all(parameter.requires_grad for parameter in whole.parameters()):
        raise ConfigError(
            "data.scaling=federated: the scaling of inputs is part of what is frozen here; set model.trainable=full"
        )
    if config.federation.personal == "head":
        make_personal(last_linear(model)[1])
        shared = shared_state(model)
        if not any(name in shared for name, parameter in model.named_parameters() if parameter.requires_grad):
            raise ConfigError(
                "federation.personal=head: of this model nothing but its head is trained, so nothing is left to"
                " federate; take a larger model, or model.trainable=last_k, lora or full"
            )
    check_optimizer("optimizer", config.optimizer)
    return Parts(source, Task(schema, metrics), whole, frozen, model)


def build_source(node: dict[str, Any]) -> DataSource:
    source = instantiate("data", node)
    if not isinstance(source, DataSource):
        raise ConfigError(f"data._target_={node['_target_']}: is not a fedapp.data.source.DataSource")
    return source


def build_model(node: dict[str, Any], schema: Schema) -> nn.Sequential:
    """The network behind its input layer: (B, *input_shape) as stored to (B, num_outputs)."""
    return assemble(instantiate("model", node, partial=True)(schema), schema)


def check_optimizer(key: str, node: dict[str, Any]) -> None:
    """Make the optimizer once, so that bad values are refused now and not in the first round."""
    made = optimizer_factory(key, node)
    try:
        make_optimizer(made, [nn.Parameter(torch.zeros(1))])
    except Exception as error:  # each library has its own
        raise ConfigError(f"{key}: {node.get('_target_')} refused its arguments: {error}") from None


def optimizer_factory(key: str, node: dict[str, Any]) -> Callable[..., torch.optim.Optimizer]:
    made = instantiate(key, node, partial=True)
    if isinstance(made, functools.partial) and isclass(made.func) and issubclass(made.func, torch.optim.Optimizer):
        # Hydra's own kind of partial asks whether the class may be made each time, which takes 0.1 ms a client.
        made = functools.partial(made.func, *made.args, **made.keywords)
    return cast(Callable[..., torch.optim.Optimizer], made)


def build_shards(config: Config, parts: Parts, path: Path | None = None, *, splits: Path | None = None) -> Shards:
    """`splits`: the folder in which the split is kept for other processes; what the environment names unless given."""
    num_clients, seed = config.federation.num_clients, derive_seed(config.run.seed, "partition")

    def split(pooled: Pooled) -> list[Tensor]:
        def make() -> list[Rows]:
            with quick_import():
                import_flower_datasets()  # the partitioners are there
            partitioner = instantiate("partition", config.partition)
            return [rows.numpy() for rows in partition(pooled, partitioner, num_clients, seed)]

        settings = {"partition": config.partition, "num_clients": num_clients, "seed": seed}
        folder = splits or splits_folder()
        owners = kept_split(folder, split_key(settings, columns_of(pooled)), make) if folder is not None else make()
        return [torch.from_numpy(rows) for rows in owners]

    schema, fraction = parts.task.schema, config.train.val_fraction
    return Shards(parts.source, schema, split, val_fraction=fraction, seed=config.run.seed, path=path)
