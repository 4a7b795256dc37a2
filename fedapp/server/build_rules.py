"""From config to stop rules: what ends a run before its last round."""

from fedapp.common.errors import ConfigError
from fedapp.config import Config
from fedapp.data.source import Examples
from fedapp.learning.build import Parts
from fedapp.learning.task import Task
from fedapp.server.build import cohort_rule
from fedapp.server.pruning import pruning_of
from fedapp.server.stopping import StopRules

__all__ = ["check_patience_metric", "rules_of", "stop_rules"]


def stop_rules(config: Config, parts: Parts, test: Examples | None) -> StopRules:
    """Raises ConfigError where nobody has data for what the rules go by. `test`: the server's, where it has any."""
    federation, metric = config.federation, config.federation.patience_metric
    check_patience_metric(config, parts.task)
    if test is not None and metric != "loss" and (why := parts.task.undefined(metric, test.targets)):
        raise ConfigError(
            f"federation.patience_metric={metric}: is not defined on the server's test data: {why}. Take a metric that"
            " is, such as loss or auc_present (task.metrics=[auc_present]), or other test data"
        )
    if test is None and not config.train.val_fraction and (federation.patience or federation.target_accuracy):
        raise ConfigError(
            "federation.patience, federation.target_accuracy: nobody has data to judge the model by. Set"
            " train.val_fraction, or give the server test data"
        )
    return rules_of(config, parts.task, cohort_rule(config).minimum)


def check_patience_metric(config: Config, task: Task) -> None:
    """Raises ConfigError for a metric that the task does not have."""
    metric, known = config.federation.patience_metric, ("loss", *task.metrics)
    if metric not in known:
        raise ConfigError(f"federation.patience_metric={metric}: must be one of {', '.join(known)}")


def rules_of(config: Config, task: Task, min_clients: int) -> StopRules:
    """The rules of the config's section `federation`, and `run.prune`."""
    federation, metric = config.federation, config.federation.patience_metric
    return StopRules(
        num_rounds=federation.num_rounds,
        target_accuracy=federation.target_accuracy,
        patience=federation.patience,
        patience_metric=metric,
        min_delta=federation.min_delta,
        lower_is_better=metric not in task.metrics or task.metrics[metric].lower_is_better,
        max_seconds=federation.max_seconds,
        max_failed_rounds=federation.max_failed_rounds,
        min_clients=min_clients,
        pruning=pruning_of(config),
    )
