"""From config to objects, on the server: strategy, schedules and where results go."""

import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import cast

from fedapp.aggregation.protocol import AggregationProtocol, protocol_of
from fedapp.aggregation.rules import AggregationRule
from fedapp.aggregation.selection.selection import selection_of
from fedapp.common.errors import ConfigError, FederationError
from fedapp.common.run_paths import run_directory
from fedapp.common.state_digest import State
from fedapp.config import Config, instantiate
from fedapp.data.source import Examples
from fedapp.learning.build import Parts, check_optimizer, optimizer_factory
from fedapp.models.shared_state import constant_names, shared_state
from fedapp.models.weights import load_into, read_weights
from fedapp.privacy.option import privacy_of
from fedapp.privacy.server_budget import ServerBudget
from fedapp.server.asynchronous.client_speed import real_timeout
from fedapp.server.population.cohort import CohortRule
from fedapp.server.population.roster import Roster
from fedapp.server.population.secret_cohort import SecretCohort
from fedapp.server.schedule import LearningRateSchedule
from fedapp.server.server_optimizer import ServerOptimizer
from fedapp.server.strategy import WeightedFedAvg
from fedapp.updates.steps import UpdateSteps

__all__ = [
    "build_strategy",
    "central_test",
    "check_strategy",
    "cohort_rule",
    "learning_rates",
    "load_initial",
    "output_directory",
]


def check_strategy(config: Config) -> int:
    """Refuse what `strategy` and the schedules cannot do. For the server's side only: clients never make them.

    Returns how many clients a round needs for the aggregation.
    """
    strategy = config.strategy
    check_optimizer("strategy.server_optimizer", strategy.server_optimizer)
    rule = _aggregation(config)({})
    if rule.each and (strategy.weighting != "uniform" or strategy.weight_cap is not None):
        raise ConfigError(
            f"strategy.weighting={strategy.weighting}, strategy.weight_cap={strategy.weight_cap}:"
            f" {strategy.aggregation['_target_']} counts every client alike; use weighting=uniform and no cap"
        )
    if rule.each and strategy.fairness is not None:
        raise ConfigError(
            f"strategy.fairness: needs the sum of all updates, and {strategy.aggregation['_target_']} gives none; use"
            " strategy=qfedavg with its own aggregation"
        )
    for name in ("client_lr", "server_lr"):
        _schedule(config, name)
    return rule.fewest


def _aggregation(config: Config) -> Callable[[State], AggregationRule]:
    made = instantiate("strategy.aggregation", config.strategy.aggregation, partial=True)
    return cast(Callable[[State], AggregationRule], made)


def cohort_rule(config: Config, clients: Collection[int] = ()) -> CohortRule:
    """A round needs as many clients as the config says, and as its aggregation takes. `clients`: all of the run."""
    federation, strategy = config.federation, config.strategy
    if (sampling := privacy_of(config).sampling(config)) is not None:
        return SecretCohort(config.run.seed, federation.fraction_train, sampling=sampling).over(clients)
    return CohortRule(
        seed=config.run.seed,
        fraction=federation.fraction_train,
        minimum=max(federation.min_clients, _aggregation(config)({}).fewest),
        over_selection=federation.over_selection,
        weighting=strategy.weighting,
        weight_cap=strategy.weight_cap,
        groups=protocol_of(config).groups,
        selection=selection_of(config),
    )


def _schedule(config: Config, name: str) -> LearningRateSchedule:
    """The schedule `client_lr` or `server_lr`. Raises ConfigError where it gives no learning rate."""
    node = getattr(config, name)
    for key in ("T_max", "step_size", "total_iters"):  # torch takes negative rounds, and makes something of them
        if not node.get(key, 1) >= 1:
            raise ConfigError(f"{name}.{key}={node[key]}: must be at least 1")
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


def learning_rates(config: Config, name: str) -> Callable[[int], float]:
    """By round, what the learning rate is multiplied by, as the schedule `client_lr` or `server_lr` has it."""
    return _schedule(config, name).factor


def build_strategy(
    config: Config,
    parts: Parts,
    roster: Roster,
    protocol: AggregationProtocol,
    steps: UpdateSteps,
    budget: ServerBudget | None = None,
) -> WeightedFedAvg:
    """`budget`: what the server itself spends of its clients' privacy.

    Raises FederationError where fewer clients can take part than the strategy needs."""
    strategy, shared = config.strategy, shared_state(parts.model).keys()
    optimizer = ServerOptimizer(
        (name for name, _ in parts.model.named_parameters() if name in shared),
        optimizer_factory("strategy.server_optimizer", strategy.server_optimizer),
        constant_names(parts.model),
    )
    made = WeightedFedAvg(
        roster,
        cohort_rule(config, roster.nodes),
        protocol.server(config, parts, steps),
        steps,
        optimizer,
        parts.task,
        client_lr=_schedule(config, "client_lr").factor,
        server_lr=_schedule(config, "server_lr").factor,
        # Longer than the round waits: a SuperNode that is late is known to be busy, and its reply recognised.
        message_ttl=2 * real_timeout(config),
        budget=budget,
    )
    if len(roster.nodes) < made.min_clients:
        raise FederationError(
            f"strategy.aggregation: {strategy.aggregation['_target_']} needs {made.min_clients} clients a round,"
            f" {len(roster.nodes)} can take part"
        )
    return made


def central_test(config: Config, parts: Parts) -> Examples | None:
    """The server's held-out data. None where there is none, and where a part of the model or all of it is the clients'
    own, so that the server has no whole model to judge."""
    if not parts.is_whole or not protocol_of(config).model_at_server:
        return None
    test = parts.source.test()
    return test if test is None else parts.task.check(test, "the server's test data")


def load_initial(config: Config, parts: Parts) -> None:
    """Begin with the model of an earlier run (`run.initial_model`, its directory), where one is given.

    Only the server reads it: what is trained goes out with round 1, and what is frozen must be what the clients have
    already. Raises ConfigError where it cannot serve.
    """
    if (given := config.run.initial_model) is None:
        return
    path, key = Path(given).expanduser(), f"run.initial_model={given}"
    if not path.is_absolute():
        raise ConfigError(f"{key}: must be an absolute path, since the server starts elsewhere")
    if not (path / "model.safetensors").exists():
        raise ConfigError(f"{key}: holds no model.safetensors, so it is no directory of a run that has ended")
    backbone = parts.backbone
    load_into(parts.whole, read_weights(path / "model.safetensors", key="run.initial_model"), key)
    if parts.backbone != backbone:
        raise ConfigError(
            f"{key}: what is frozen in this run (model.trainable={config.model.get('trainable')}) differs from what"
            " clients have, and is never sent to them; set model.trainable=full"
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
