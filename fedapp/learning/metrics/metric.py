"""What a metric is to the rest of the app."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

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

    @property
    def largest(self) -> float:
        """The largest magnitude that a value can have."""
        return max(abs(self.lowest), abs(self.highest))

    def possible(self, value: float) -> bool:
        """Whether the metric can have this value at all; what a client reports may be made up."""
        return self.lowest <= value <= self.highest
