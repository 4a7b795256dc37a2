"""One number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from fedapp.common.errors import ConfigError, DataError
from fedapp.learning.losses import Loss
from fedapp.learning.losses.regression import SquaredError
from fedapp.learning.metrics import Metric
from fedapp.learning.metrics.regression import MeanAbsoluteError
from fedapp.learning.task import Task

__all__ = ["Regression"]


@dataclass(frozen=True)
class Regression(Task):
    """Outputs are (B, 1), targets numbers (B,). Raises ConfigError for data with classes."""

    kind: ClassVar[str] = "regression"
    criterion: Loss = field(default_factory=SquaredError)
    metrics: Mapping[str, Metric] = field(default_factory=lambda: {"mae": MeanAbsoluteError("mae")})

    def __post_init__(self) -> None:
        if self.schema.classes:
            raise ConfigError("task.kind=regression: the data's target is a class, not a number; use auto")

    def example_targets(self, count: int) -> Tensor:
        return torch.zeros(count)

    def check_targets(self, targets: Tensor, name: str) -> None:
        if targets.dim() != 1:
            raise DataError(f"{name}: targets have shape {tuple(targets.shape)}, one number an example is needed")
        if not torch.isfinite(targets).all():
            raise DataError(f"{name}: a target is NaN or infinite")

    @property
    def columns(self) -> tuple[str, ...]:
        return ("prediction",)

    def row(self, prediction: Sequence[float]) -> list[str]:
        return [f"{prediction[0]:.9g}"]

    def line(self, prediction: Sequence[float]) -> list[str]:
        return self.row(prediction)
