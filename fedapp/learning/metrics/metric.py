"""What a metric is to the rest of the app."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from fedapp.data.source import Schema

__all__ = ["Metric", "averaged", "of_averages"]


@dataclass(frozen=True)
class Metric(ABC):
    """A metric for tasks of the kind `serves`. `name` is that of its file in conf/metric/.

    No value lies outside `lowest`..`highest`: the server rejects what a client reports beyond them. `power` of the unit
    of the targets is that of the metric, `average_power` that of what is averaged over clients (see `to_average`).
    """

    serves: ClassVar[str]
    lower_is_better: ClassVar[bool] = False
    lowest: ClassVar[float] = 0.0
    highest: ClassVar[float] = 1.0
    power: ClassVar[int] = 0
    name: str

    def of(self, schema: Schema) -> Self:
        """This metric for data of this form. Raises ConfigError where it cannot serve that."""
        return self

    @abstractmethod
    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        """Its value for outputs (n, *output_shape) and their targets, on the CPU. NaN where it is not defined."""

    def on_draws(self, outputs: Tensor, targets: Tensor, counts: Tensor) -> Tensor:
        """Its values (draws,) float64 on draws of these examples with replacement; `counts` (draws, n) int64: how often
        an example is in each. A metric that can say this of all draws at once is faster than this loop."""
        rows = torch.arange(len(targets))
        drawn = (torch.repeat_interleave(rows, count) for count in counts)
        return torch.tensor([self(outputs[chosen], targets[chosen]) for chosen in drawn], dtype=torch.float64)

    @property
    def largest(self) -> float:
        """The largest magnitude that a value can have."""
        return max(abs(self.lowest), abs(self.highest))

    def to_average(self, value: float) -> float:
        """What a client reports of its value, so that a mean over clients says what one over all their examples says:
        of a function of a mean, such as the root of one, the mean that is inside."""
        return value

    def of_average(self, mean: float) -> float:
        """The metric of such a mean; NaN where there is none."""
        return mean

    @property
    def average_power(self) -> int:
        return self.power

    @property
    def largest_average(self) -> float:
        """The largest magnitude of what is averaged."""
        return max(abs(self.to_average(self.lowest)), abs(self.to_average(self.highest)))

    def possible(self, value: float) -> bool:
        """Whether the metric can have this value at all; what a client reports may be made up."""
        return self.lowest <= value <= self.highest


def averaged(metrics: Mapping[str, Metric], values: Mapping[str, float]) -> dict[str, float]:
    """Values by name as a client reports them."""
    return {name: metrics[name].to_average(value) for name, value in values.items()}


def of_averages(metrics: Mapping[str, Metric], means: Mapping[str, float]) -> dict[str, float]:
    """By name, the metrics of what clients reported, or of its means; what is no metric is left out."""
    return {name: metric.of_average(means[name]) for name, metric in metrics.items() if name in means}
