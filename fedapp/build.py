"""From config to objects: the one place where config values become data, task, model, strategy and site."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from fedapp.config import Config, instantiate
from fedapp.data.shards import Shards
from fedapp.data.source import DataSource
from fedapp.errors import ConfigError
from fedapp.federation.preflight import Population
from fedapp.federation.site import Site
from fedapp.federation.strategy import WeightedFedAvg
from fedapp.metrics import choose
from fedapp.models.check import check_fits
from fedapp.models.input_layer import assemble
from fedapp.seeding import seeded
from fedapp.task import Task
from fedapp.training import LocalTraining, resolve_device

__all__ = [
    "Parts",
    "build_parts",
    "build_shards",
    "build_site",
    "build_strategy",
    "check_server_optimizer",
    "optimizer_factory",
    "output_directory",
]


@dataclass(frozen=True)
class Parts:
    """What server and clients both have: the data set, the task, and the model at its initial state."""

    source: DataSource
    task: Task
    model: nn.Module


def build_parts(config: Config) -> Parts:
    """Raises ConfigError or DataError for whatever cannot work, before anything starts."""
    for key in ("path", "test_path"):
        if (path := config.data.get(key)) and not Path(path).expanduser().is_absolute():
            raise ConfigError(f"data.{key}={path}: must be an absolute path, since server and clients start elsewhere")
    source = instantiate("data", config.data)
    if not isinstance(source, DataSource):
        raise ConfigError(f"data._target_={config.data['_target_']}: is not a fedapp.data.source.DataSource")
    schema = source.schema()
    metrics = choose(config.task.metrics, classification=schema.is_classification)
    if config.federation.target_accuracy is not None and "accuracy" not in metrics:
        raise ConfigError("federation.target_accuracy: needs a classification task, this one is a regression")
    with seeded(config.run.seed, "model"):
        net = instantiate("model", config.model, partial=True)(schema)
    model = assemble(net, schema)
    check_fits(model, schema)
    _check_optimizer("optimizer", config.optimizer)
    return Parts(source, Task(schema, metrics), model)


def check_server_optimizer(config: Config) -> None:
    """Refuse bad values of `strategy.server_optimizer`. For the server's side only: clients never make it."""
    _check_optimizer("strategy.server_optimizer", config.strategy.server_optimizer)


def _check_optimizer(key: str, node: dict[str, Any]) -> None:
    """Make the optimizer once, so that bad values are refused now and not in the first round."""
    made = optimizer_factory(key, node)
    try:
        made([nn.Parameter(torch.zeros(1))])
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{key}: {node.get('_target_')} refused its arguments: {error}") from None


def optimizer_factory(key: str, node: dict[str, Any]) -> Callable[..., torch.optim.Optimizer]:
    return cast(Callable[..., torch.optim.Optimizer], instantiate(key, node, partial=True))


def build_shards(config: Config, parts: Parts, path: Path | None = None) -> Shards:
    return Shards(
        parts.source,
        parts.task.schema,
        lambda: instantiate("partition", config.partition),
        num_clients=config.federation.num_clients,
        val_fraction=config.train.val_fraction,
        seed=config.run.seed,
        path=path,
    )


def build_site(config: Config, data_path: Path | None) -> Site:
    """A SuperNode's side. A device's own `data_path` comes before anything that the config says."""
    if data_path is not None:
        # The operator named the data. What the config says of files must not be looked at: a server could read others.
        data = {key: None if key in ("path", "test_path") else value for key, value in config.data.items()}
        config = replace(config, data=data)
    parts = build_parts(config)
    return Site(
        shards=build_shards(config, parts, data_path),
        task=parts.task,
        model=parts.model.to(resolve_device(config.run.device)),
        training=LocalTraining(
            loss=parts.task.loss,
            optimizer=optimizer_factory("optimizer", config.optimizer),
            local_epochs=config.train.local_epochs,
            batch_size=config.train.batch_size,
            proximal_mu=config.train.proximal_mu,
        ),
        seed=config.run.seed,
        max_update_norm=config.strategy.max_update_norm,
    )


def build_strategy(config: Config, parts: Parts, population: Population) -> WeightedFedAvg:
    return WeightedFedAvg(
        population,
        parameters=[name for name, _ in parts.model.named_parameters()],
        server_optimizer=optimizer_factory("strategy.server_optimizer", config.strategy.server_optimizer),
        seed=config.run.seed,
        fraction_train=config.federation.fraction_train,
        min_clients=config.federation.min_clients,
        weighting=config.strategy.weighting,
        weight_cap=config.strategy.weight_cap,
        max_update_norm=config.strategy.max_update_norm,
        message_ttl=config.federation.round_timeout,
        main_metric=parts.task.main_metric,
    )


def output_directory(config: Config, default: Path) -> Path:
    """Where this run's results go. Raises ConfigError for a relative path: Flower's processes start elsewhere."""
    if config.run.output_dir is None:
        return default
    path = Path(config.run.output_dir).expanduser()
    if not path.is_absolute():
        raise ConfigError(f"run.output_dir={path}: must be an absolute path, since the server starts elsewhere")
    return path
