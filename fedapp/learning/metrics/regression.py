"""Metrics for one number: outputs (n, 1), targets (n,)."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedapp.learning.metrics.metric import Metric

__all__ = [
    "R2",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "MedianAbsoluteError",
    "PercentageError",
    "RootMeanSquaredError",
    "ScaledError",
]


class UnboundedError(Metric):
    """One that has no bound, and of which less is better."""

    serves: ClassVar[str] = "regression"
    lower_is_better: ClassVar[bool] = True
    highest: ClassVar[float] = math.inf


class MeanAbsoluteError(UnboundedError):
    power: ClassVar[int] = 1

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        return float((outputs.squeeze(1) - targets).abs().double().mean())

    def on_draws(self, outputs: Tensor, targets: Tensor, counts: Tensor) -> Tensor:
        weights = counts.double()
        return weights @ (outputs.squeeze(1) - targets).abs().double() / weights.sum(1)


class R2(Metric):
    """Coefficient of determination: 1 is perfect, 0 what the mean of the targets achieves. NaN for one example."""

    serves: ClassVar[str] = "regression"
    lowest: ClassVar[float] = -math.inf

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        from sklearn.metrics import r2_score  # type: ignore[import-untyped, unused-ignore]

        return float(r2_score(targets.numpy(), outputs.squeeze(1).numpy())) if len(targets) > 1 else float("nan")


class MeanSquaredError(UnboundedError):
    power: ClassVar[int] = 2

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        return float((outputs.squeeze(1) - targets).double().square().mean())


class RootMeanSquaredError(UnboundedError):
    power: ClassVar[int] = 1

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        return float((outputs.squeeze(1) - targets).double().square().mean().sqrt())

    def to_average(self, value: float) -> float:
        return value * value

    def of_average(self, mean: float) -> float:
        return math.sqrt(mean) if mean >= 0 else math.nan

    @property
    def average_power(self) -> int:
        return 2


class MedianAbsoluteError(UnboundedError):
    power: ClassVar[int] = 1

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        from sklearn.metrics import median_absolute_error

        return float(median_absolute_error(targets.numpy(), outputs.squeeze(1).numpy()))


class PercentageError(UnboundedError):
    """Mean absolute error as a share of the target. NaN where a target is 0, of which no error is a share."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        from sklearn.metrics import mean_absolute_percentage_error

        if not targets.all():
            return float("nan")
        return float(mean_absolute_percentage_error(targets.double().numpy(), outputs.squeeze(1).double().numpy()))


@dataclass(frozen=True)
class ScaledError(UnboundedError):
    """Mean absolute scaled error (Hyndman & Koehler 2006): the mean absolute error as a share of what repeating the
    value of `season` rows before makes on the same rows, in the order in which they are. NaN for too few rows, and
    where that makes no error."""

    season: Annotated[int, Field(ge=1)] = 1

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        naive = (targets[self.season :] - targets[: -self.season]).abs().double()
        if not len(naive) or not naive.any():
            return float("nan")
        return float((outputs.squeeze(1) - targets).abs().double().mean() / naive.mean())

    def on_draws(self, outputs: Tensor, targets: Tensor, counts: Tensor) -> Tensor:
        """A row that is drawn keeps its own naive error: rows of a draw are in no order of time."""
        naive = (targets[self.season :] - targets[: -self.season]).abs().double()
        weights, error = counts.double(), (outputs.squeeze(1) - targets).abs().double()
        late = weights[:, self.season :]
        scale = late @ naive / late.sum(1)
        return torch.where(scale > 0, (weights @ error / weights.sum(1)) / scale, math.nan)
