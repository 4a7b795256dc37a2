"""Losses for one class out of several: of logits (B, classes) and class indices (B,)."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own idiom)
from torch import Tensor

from fedapp.common.errors import ConfigError
from fedapp.data.source import Schema
from fedapp.learning.losses.loss import Loss
from fedapp.models.output_layer import ClassWeights, OutputLayer

__all__ = ["ClassLoss", "CrossEntropy", "Focal"]


@dataclass(frozen=True, kw_only=True)
class ClassLoss(Loss):
    """`class_weights`: how much an example of each class counts, by class; or "balanced": so that each class counts
    alike, by the counts over all clients. `weights` holds them, as the model's last layer. A mean is over examples, so
    that clients count as the server weights them, whatever classes they have.

    Raises ConfigError for weights that are not one of each class, positive or 0.
    """

    serves: ClassVar[str] = "classification"
    class_weights: Literal["balanced"] | Mapping[str, float] | None = None
    weights: ClassWeights | None = None

    @property
    def layer(self) -> OutputLayer | None:
        return self.weights

    def of(self, schema: Schema) -> Self:
        given, classes = self.class_weights, schema.classes
        if given is None:
            return self
        if isinstance(given, str):
            return replace(self, weights=ClassWeights(len(classes)))
        by_name = {str(name): weight for name, weight in given.items()}
        if (
            by_name.keys() != set(classes)
            or any(weight < 0 for weight in by_name.values())
            or not any(by_name.values())
        ):
            raise ConfigError(
                f"task.loss.class_weights={dict(given)}: needs a weight of 0 or more for each class, not 0 for all:"
                f" {', '.join(classes)}; or balanced"
            )
        return replace(self, weights=ClassWeights(len(classes), [by_name[name] for name in classes]))

    def per_example(self, outputs: Tensor, targets: Tensor) -> Tensor:
        losses = self.unweighted(outputs, targets)
        return losses if self.weights is None else losses * self.weights.of(targets)

    @abstractmethod
    def unweighted(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(B,) losses as if each class counted alike."""


@dataclass(frozen=True)
class CrossEntropy(ClassLoss):
    """`label_smoothing` is the share of each target that is spread over all classes alike (Szegedy et al., "Rethinking
    the Inception Architecture for Computer Vision", CVPR 2016).

    Raises ConfigError for a share outside [0, 1).
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"task.loss.label_smoothing={self.label_smoothing}: must be at least 0 and below 1")

    def unweighted(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, reduction="none", label_smoothing=self.label_smoothing)

    def mean(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if self.weights is not None:
            return super().mean(outputs, targets)
        return F.cross_entropy(outputs, targets, label_smoothing=self.label_smoothing)


@dataclass(frozen=True)
class Focal(ClassLoss):
    """Cross entropy times `(1 - p) ** gamma`, where p is the probability of the true class: examples that are already
    right count less (Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017). Raises ConfigError for a `gamma`
    below 0."""

    gamma: float = 2.0

    def __post_init__(self) -> None:
        if not self.gamma >= 0:
            raise ConfigError(f"task.loss.gamma={self.gamma}: must be at least 0; 0 is cross entropy")

    def unweighted(self, outputs: Tensor, targets: Tensor) -> Tensor:
        loss = F.cross_entropy(outputs, targets, reduction="none")
        wrong = -torch.expm1(-loss)  # 1 - p, exact also near p = 1
        # Where p rounds to 1 the power has no finite gradient for a gamma below 1; the loss there is 0.
        return torch.where(wrong > 0, wrong, torch.finfo(wrong.dtype).tiny) ** self.gamma * loss
