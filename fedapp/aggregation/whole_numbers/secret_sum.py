"""What the protocols under which the server learns a sum, and no single update, have in common as options."""

import math
from typing import ClassVar

from fedapp.aggregation.protocol import AggregationProtocol
from fedapp.aggregation.whole_numbers.metrics import LARGEST
from fedapp.common.errors import ConfigError
from fedapp.config import Config, instantiate
from fedapp.config.same_maths import maths_sha256
from fedapp.learning.build import Parts
from fedapp.privacy.option import privacy_of
from fedapp.updates.steps import steps_of

__all__ = ["SecretSum"]


class SecretSum(AggregationProtocol):
    """`setting`: how the option is chosen, for messages."""

    individual_updates = False
    exact = True
    setting: ClassVar[str]

    def conflicts(self, config: Config, parts: Parts) -> None:
        """What needs more than the sum of a cohort."""
        if instantiate("strategy.aggregation", config.strategy.aggregation, partial=True)({}).each:
            raise ConfigError(
                f"{self.setting}: {config.strategy.aggregation['_target_']} looks at single updates, and"
                " there the server sees only their sum; use strategy=fedavg (or another that averages), or"
                " secure_aggregation=none"
            )
        if not steps_of(config).summable:
            raise ConfigError(
                f"compression._target_={config.compression['_target_']}: its output cannot be summed, as"
                f" {self.setting} needs it; use compression=none, or secure_aggregation=none"
            )
        if config.federation.final_evaluation:
            raise ConfigError(
                f"federation.final_evaluation=true: under {self.setting} no single client's metrics leave it; set it to"
                " false"
            )
        for agreement in parts.task.agreements:
            raise ConfigError(
                f"{agreement.setting}: under {self.setting} {agreement.what} of single clients' data must not leave"
                f" them; use public constants: {agreement.remedy}"
            )

    def level_bits(self, config: Config) -> int | None:
        """Of the whole numbers that updates are made of before this protocol sees them, where they are."""
        return steps_of(config).level_bits

    def maths(self, config: Config) -> str:
        """The SHA-256 of what of the config decides what a round computes."""
        return maths_sha256(config, {f"secure_aggregation.{key}" for key in self.free_keys})

    def metric_ranges(self, config: Config, parts: Parts) -> dict[str, float]:
        """By name, the largest value of each metric that is aggregated along with an update. Where the privacy option
        lets no metric leave a client, there is only what follows from the update itself, which may."""
        if not privacy_of(config).discloses_metrics:
            return {"clipped": 1.0}
        metrics = {
            f"val_{name}": most
            if math.isfinite(most := metric.largest_average)
            else LARGEST * parts.task.unit**metric.average_power
            for name, metric in parts.task.metrics.items()
        }
        return {"train_loss": 64.0, "val_loss": 64.0, **metrics, "clipped": 1.0}

    def lowest_values(self, parts: Parts) -> dict[str, float]:
        """By name, the lowest value of each metric, where it has one."""
        loss = parts.task.criterion.lowest
        lowest = {f"val_{name}": metric.to_average(metric.lowest) for name, metric in parts.task.metrics.items()}
        lowest |= {"train_loss": loss, "val_loss": loss}
        return {"clipped": 0.0, **{name: low for name, low in lowest.items() if math.isfinite(low)}}
