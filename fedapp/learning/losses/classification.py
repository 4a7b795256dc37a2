"""Losses for one class out of several."""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F  # noqa: N812 (torch's own idiom)
from torch import Tensor

from fedapp.common.errors import ConfigError
from fedapp.learning.losses.loss import Loss

__all__ = ["CrossEntropy"]


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """Of logits (B, classes) and class indices (B,). `label_smoothing` is the share of each target that is spread over
    all classes alike (Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016).

    Raises ConfigError for a share outside [0, 1).
    """

    serves: ClassVar[str] = "classification"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"task.loss.label_smoothing={self.label_smoothing}: must be at least 0 and below 1")

    def per_example(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, reduction="none", label_smoothing=self.label_smoothing)

    def mean(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, label_smoothing=self.label_smoothing)
