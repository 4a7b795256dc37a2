"""Losses for one number: outputs (B, 1), targets (B,)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F  # noqa: N812 (torch's own idiom)
from torch import Tensor

from fedapp.common.errors import ConfigError
from fedapp.learning.losses.loss import Loss

__all__ = ["Huber", "SquaredError"]


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
    Annals of Mathematical Statistics 1964). Raises ConfigError for a `delta` that is not above 0."""

    serves: ClassVar[str] = "regression"
    delta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.delta < math.inf:
            raise ConfigError(f"task.loss.delta={self.delta}: must be greater than 0, in the units of the target")

    def per_example(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.huber_loss(outputs.squeeze(1), targets, reduction="none", delta=self.delta)
