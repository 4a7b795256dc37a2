"""What a metric is to the rest of the app."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from fedapp.data.source import Schema

__all__ = ["Metric"]


@dataclass(frozen=True)
class Metric(ABC):
    """A metric for tasks of the kind `serves`. `name` is that of its file in conf/metric/.

    No value lies outside `lowest`..`highest`: the server rejects what a client reports beyond them. `power` of the unit
    of the targets is that of the metric.
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

    def possible(self, value: float) -> bool:
        """Whether the metric can have this value at all; what a client reports may be made up."""
        return self.lowest <= value <= self.highest
