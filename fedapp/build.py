"""From config to objects: the one place where config values become data, task, model, strategy and site."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from fedapp.config import Config, instantiate
from fedapp.data.shards import Shards
from fedapp.data.source import DataSource
from fedapp.errors import ConfigError, FederationError
from fedapp.federation.aggregation_rules import AggregationRule
from fedapp.federation.resume import run_directory
from fedapp.federation.roster import Roster
from fedapp.federation.schedule import LearningRateSchedule
from fedapp.federation.server_step import ServerOptimizer
from fedapp.federation.site import Site
from fedapp.federation.stopping import StopRules
from fedapp.federation.strategy import WeightedFedAvg
from fedapp.metrics import LOWER_IS_BETTER, choose
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
    "check_strategy",
    "optimizer_factory",
    "output_directory",
    "stop_rules",
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


def check_strategy(config: Config) -> int:
    """Refuse what `strategy` and the schedules cannot do. For the server's side only: clients never make them.

    Returns how many clients a round needs for the aggregation.
    """
    strategy = config.strategy
    _check_optimizer("strategy.server_optimizer", strategy.server_optimizer)
    rule = _aggregation(config)({})
    if rule.each and (strategy.weighting != "uniform" or strategy.weight_cap is not None):
        raise ConfigError(
            f"strategy.weighting={strategy.weighting}, strategy.weight_cap={strategy.weight_cap}:"
            f" {strategy.aggregation['_target_']} counts every client alike; use weighting=uniform and no cap"
        )
    for name in ("client_lr", "server_lr"):
        _schedule(config, name)
    return rule.fewest


def _aggregation(config: Config) -> Callable[[dict[str, torch.Tensor]], AggregationRule]:
    made = instantiate("strategy.aggregation", config.strategy.aggregation, partial=True)
    return cast(Callable[[dict[str, torch.Tensor]], AggregationRule], made)


def _schedule(config: Config, name: str) -> LearningRateSchedule:
    """The schedule `client_lr` or `server_lr`. Raises ConfigError where it gives no learning rate."""
    node = getattr(config, name)
    try:
        schedule = LearningRateSchedule(instantiate(name, node, partial=True))
        factors = [schedule.factor(number) for number in range(1, min(config.federation.num_rounds, 1000) + 1)]
    except (ValueError, TypeError, ArithmeticError) as error:
        raise ConfigError(f"{name}: {node['_target_']} refused its arguments: {error}") from None
    for number, factor in enumerate(factors, start=1):
        if not (math.isfinite(factor) and factor >= 0):
            raise ConfigError(
                f"{name}: {node['_target_']} multiplies the learning rate of round {number} by {factor:g}"
            )
    return schedule


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
            max_seconds=config.train.max_seconds,
        ),
        seed=config.run.seed,
        max_update_norm=config.strategy.max_update_norm,
    )


def build_strategy(config: Config, parts: Parts, roster: Roster) -> WeightedFedAvg:
    """Raises FederationError where fewer clients can take part than the strategy needs."""
    federation, strategy = config.federation, config.strategy
    made = WeightedFedAvg(
        roster,
        server_optimizer=ServerOptimizer(
            (name for name, _ in parts.model.named_parameters()),
            optimizer_factory("strategy.server_optimizer", strategy.server_optimizer),
        ),
        seed=config.run.seed,
        aggregation=_aggregation(config),
        fraction_train=federation.fraction_train,
        over_selection=federation.over_selection,
        min_clients=federation.min_clients,
        weighting=strategy.weighting,
        weight_cap=strategy.weight_cap,
        max_update_norm=strategy.max_update_norm,
        client_lr=_schedule(config, "client_lr").factor,
        server_lr=_schedule(config, "server_lr").factor,
        # Longer than the round waits: a SuperNode that is late is known to be busy, and its reply recognised.
        message_ttl=2 * federation.round_timeout,
        main_metric=parts.task.main_metric,
    )
    if len(roster.nodes) < made.min_clients:
        raise FederationError(
            f"strategy.aggregation: {strategy.aggregation['_target_']} needs {made.min_clients} clients a round,"
            f" {len(roster.nodes)} can take part"
        )
    return made


def stop_rules(config: Config, parts: Parts, *, server_has_data: bool) -> StopRules:
    """Raises ConfigError where nobody has data for what the rules go by."""
    federation, metric = config.federation, config.federation.patience_metric
    known = ("loss", *(parts.task.metrics if server_has_data else [parts.task.main_metric]))
    if metric not in known:
        raise ConfigError(f"federation.patience_metric={metric}: must be one of {', '.join(known)}")
    if not server_has_data and not config.train.val_fraction and (federation.patience or federation.target_accuracy):
        raise ConfigError(
            "federation.patience, federation.target_accuracy: nobody has data to judge the model by. Set"
            " train.val_fraction, or give the server test data"
        )
    return StopRules(
        num_rounds=federation.num_rounds,
        target_accuracy=federation.target_accuracy,
        patience=federation.patience,
        patience_metric=metric,
        lower_is_better=metric in LOWER_IS_BETTER,
        max_seconds=federation.max_seconds,
        max_failed_rounds=federation.max_failed_rounds,
    )


def output_directory(config: Config, default: Path) -> Path:
    """Where this run's results go. Raises ConfigError for a relative path: Flower's processes start elsewhere."""
    resumed = run_directory(config.run.resume)
    if config.run.output_dir is None:
        if config.run.resume == "auto":
            raise ConfigError("run.resume=auto: needs run.output_dir=<the run's directory>, or give it as run.resume")
        return resumed or default
    path = Path(config.run.output_dir).expanduser()
    if not path.is_absolute():
        raise ConfigError(f"run.output_dir={path}: must be an absolute path, since the server starts elsewhere")
    if resumed is not None and resumed != path:
        raise ConfigError(f"run.output_dir={path}: a run goes on in its own directory, {resumed}; leave output_dir out")
    return path
