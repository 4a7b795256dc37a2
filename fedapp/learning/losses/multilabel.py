"""Losses for several labels at once: of logits (B, labels) and 0 or 1 (B, labels)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import torch.nn.functional as F  # noqa: N812 (torch's own idiom)
from torch import Tensor

from fedapp.common.errors import ConfigError
from fedapp.data.source import Schema
from fedapp.learning.losses.loss import Loss
from fedapp.models.output_layer import LabelWeights, OutputLayer

__all__ = ["BinaryCrossEntropy"]


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """Binary cross entropy of each label, of which an example's loss is the mean over the labels.

    `class_weights`: how much having a label counts, by label, where not having it counts 1; or "balanced": so that of
    each label having and not having it count alike, by the counts over all clients. `weights` holds them, as the
    model's last layer. Raises ConfigError for weights that are not one of each label, above 0.
    """

    serves: ClassVar[str] = "multilabel"
    class_weights: Literal["balanced"] | Mapping[str, float] | None = None
    weights: LabelWeights | None = None

    @property
    def layer(self) -> OutputLayer | None:
        return self.weights

    def of(self, schema: Schema) -> Self:
        given, labels = self.class_weights, schema.labels
        if given is None:
            return self
        if isinstance(given, str):
            return replace(self, weights=LabelWeights(len(labels)))
        by_name = {str(name): weight for name, weight in given.items()}
        if by_name.keys() != set(labels) or any(weight <= 0 for weight in by_name.values()):
            raise ConfigError(
                f"task.loss.class_weights={dict(given)}: needs a weight above 0 for each label, of how much having it"
                f" counts: {', '.join(labels)}; or balanced"
            )
        return replace(self, weights=LabelWeights(len(labels), [by_name[name] for name in labels]))

    def per_example(self, outputs: Tensor, targets: Tensor) -> Tensor:
        losses = F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
        return (losses if self.weights is None else losses * self.weights.of(targets)).mean(1)
