"""Losses for one number: outputs (B, 1), targets (B,)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own idiom)
from torch import Tensor

from fedapp.common.errors import ConfigError
from fedapp.learning.losses.loss import Loss

__all__ = ["Huber", "Quantile", "SquaredError"]


@dataclass(frozen=True)
class SquaredError(Loss):
    serves: ClassVar[str] = "regression"

    def per_example(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(outputs.squeeze(1), targets, reduction="none")

    def mean(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(outputs.squeeze(1), targets)


@dataclass(frozen=True)
class Huber(Loss):
    """Half the squared error up to `delta`, linear beyond it (Huber, "Robust Estimation of a Location Parameter",
    Annals of Mathematical Statistics 1964). `delta` is in deviations of the target, in its unit where targets are not
    scaled. Raises ConfigError for a `delta` that is not above 0."""

    serves: ClassVar[str] = "regression"
    delta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.delta < math.inf:
            raise ConfigError(f"task.loss.delta={self.delta}: must be greater than 0")

    def per_example(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.huber_loss(outputs.squeeze(1), targets, reduction="none", delta=self.delta)


@dataclass(frozen=True)
class Quantile(Loss):
    """The loss whose least value the quantile `q` of the targets has, such as the median at 0.5: `q` times what a
    prediction is too small by, `1 - q` times what it is too large by (Koenker & Bassett, "Regression Quantiles",
    Econometrica 1978). Raises ConfigError for a `q` outside (0, 1)."""

    serves: ClassVar[str] = "regression"
    q: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.q < 1:
            raise ConfigError(f"task.loss.q={self.q}: must be greater than 0 and less than 1")

    def per_example(self, outputs: Tensor, targets: Tensor) -> Tensor:
        missing = targets - outputs.squeeze(1)
        return torch.maximum(self.q * missing, (self.q - 1) * missing)
