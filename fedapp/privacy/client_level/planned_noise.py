"""How the noise multiplier of a round is shared out over what it releases: updates, the quantile's count, metrics."""

import math

from fedapp.common.errors import ConfigError
from fedapp.config import Config
from fedapp.learning.task import Task
from fedapp.privacy.accounting import calibrate
from fedapp.privacy.client_level.central_step import CentralNoise, NormQuantile
from fedapp.privacy.client_level.client_dp import ClientDp
from fedapp.privacy.client_level.metric_sums import MetricSums, summed_metrics
from fedapp.privacy.sampling import Sampling

__all__ = ["check_metrics", "planned_noise"]

BIT_NOISE = 20  # Andrew et al. 2021, section 3.2: the noise on the count is a twentieth of the expected cohort


def check_metrics(keys: ClientDp, config: Config) -> None:
    """Raises ConfigError for metrics that nobody can measure, or that another account would not count."""
    if (given := keys.metrics_epsilon) is None:
        return
    if keys.examples is not None:
        raise ConfigError(
            f"privacy.metrics_epsilon={given:g}: with privacy=client_and_example_dp the clients' own ledgers count"
            " training alone, and would not count metrics of validation examples; leave it null"
        )
    if not config.train.val_fraction:
        raise ConfigError(
            f"privacy.metrics_epsilon={given:g}: is for metrics of validation splits, and train.val_fraction=0 leaves"
            " none; set that above 0, or metrics_epsilon to null"
        )


def planned_noise(keys: ClientDp, config: Config, task: Task, sampling: Sampling, joint: float) -> CentralNoise:
    """Such that all together has the noise multiplier `joint`: inverse squares add. Raises ConfigError where nothing is
    left for the updates."""
    left = joint**-2 if joint else math.inf
    if (quantile := _quantile(keys, sampling, joint)) is not None:
        left -= (2 * quantile.noise) ** -2
        if not left > 0:
            raise ConfigError(
                f"privacy.quantile_noise={quantile.noise:g}: with a noise multiplier of {joint:.4g} in all nothing is"
                f" left for the updates; set it above {joint / 2:.4g}, or leave it null"
            )
    if (metrics := _metrics(keys, config, task)) is not None:
        left -= metrics.multiplier**-2
        if not left > 0:
            raise ConfigError(
                f"privacy.metrics_epsilon={keys.metrics_epsilon:g}: of the run's budget (a noise multiplier of"
                f" {joint:.4g} in all) nothing is left for the updates; set it lower, or privacy.target_epsilon higher"
            )
    return CentralNoise(left**-0.5, sampling.unit, sampling.expected, quantile, keys.noise_source, metrics)


def _quantile(keys: ClientDp, sampling: Sampling, joint: float) -> NormQuantile | None:
    if keys.quantile is None:
        return None
    return NormQuantile(
        keys.quantile, keys.quantile_rate, keys.quantile_noise or max(sampling.expected / BIT_NOISE, joint)
    )


def _metrics(keys: ClientDp, config: Config, task: Task) -> MetricSums | None:
    """With as much noise as if nothing but metrics were released, at their own share of the budget."""
    if keys.metrics_epsilon is None:
        return None
    federation = config.federation
    noise = calibrate(
        keys.metrics_epsilon, keys.delta_of(config), federation.fraction_train, federation.num_rounds, keys.accountant
    )
    return MetricSums(summed_metrics(task, keys.metrics_loss_cap), keys.metrics_count_cap, noise)
