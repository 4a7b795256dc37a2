"""Metrics of several labels at once: outputs (n, labels) are logits, targets (n, labels) 0 or 1.

A label is predicted where its probability is at least 50 %. scikit-learn is imported where it is used: it takes a
second, and few runs need it.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from torch import Tensor

from fedapp.common.errors import ConfigError
from fedapp.data.source import Schema
from fedapp.learning.metrics.metric import Metric

__all__ = [
    "HammingLoss",
    "LabelAuc",
    "LabelAveragePrecision",
    "LabelF1Macro",
    "LabelF1Micro",
    "SubsetAccuracy",
]


def said(outputs: Tensor) -> Tensor:
    """(n, labels) bool: the labels that are predicted."""
    return outputs >= 0


class LabelMetric(Metric):
    serves: ClassVar[str] = "multilabel"


class SubsetAccuracy(LabelMetric):
    """Share of examples all of whose labels are right (exact match)."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        return float((said(outputs) == (targets > 0)).all(1).double().mean())


class HammingLoss(LabelMetric):
    """Share of wrong labels out of all labels of all examples."""

    lower_is_better: ClassVar[bool] = True

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        return float((said(outputs) != (targets > 0)).double().mean())


class LabelF1Micro(LabelMetric):
    """Harmonic mean of precision and recall over all labels of all examples. NaN where no example has or is said to
    have any."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        from sklearn.metrics import f1_score  # type: ignore[import-untyped]

        true, found = (targets > 0).numpy().ravel(), said(outputs).numpy().ravel()
        return float(f1_score(true, found, zero_division=float("nan")))


@dataclass(frozen=True)
class ByLabel(LabelMetric):
    """A metric of the label `label`; where that is None, the mean over all of them. `absent` says what becomes of that
    where a label has no value of its own: the mean has none either, or the label is left out of it. `index`: the place
    of the label, which `of` finds."""

    label: str | int | None = None
    absent: Literal["undefined", "left_out"] = "undefined"
    index: int | None = None

    def of(self, schema: Schema) -> Self:
        """Raises ConfigError for a label that the data does not have."""
        if self.label is None:
            return self
        if str(self.label) not in schema.labels:
            raise ConfigError(
                f"task.metrics: {self.name}.label={self.label}: no such label; known: {', '.join(schema.labels)}"
            )
        return type(self)(self.name, self.label, self.absent, schema.labels.index(str(self.label)))

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        places = range(targets.shape[1]) if self.index is None else [self.index]
        values = [self.alone(outputs[:, at], targets[:, at] > 0) for at in places]
        if self.absent == "left_out":
            values = [value for value in values if not math.isnan(value)]
        return sum(values) / len(values) if values else float("nan")

    @abstractmethod
    def alone(self, scores: Tensor, true: Tensor) -> float:
        """Of one label: logits (n,), and (n,) bool whether each example has it. NaN where it is not defined."""


class LabelAuc(ByLabel):
    """Area under the ROC curve. A label that all examples have, or none, has no value."""

    def alone(self, scores: Tensor, true: Tensor) -> float:
        from sklearn.metrics import roc_auc_score

        return float("nan") if true.all() or not true.any() else float(roc_auc_score(true.numpy(), scores.numpy()))


class LabelAveragePrecision(ByLabel):
    """Area under the curve of precision over recall, as scikit-learn has it. A label that no example has has no
    value."""

    def alone(self, scores: Tensor, true: Tensor) -> float:
        from sklearn.metrics import average_precision_score

        return float(average_precision_score(true.numpy(), scores.numpy())) if true.any() else float("nan")


class LabelF1Macro(ByLabel):
    """Harmonic mean of precision and recall. A label that no example has, or is said to have, has no value."""

    def alone(self, scores: Tensor, true: Tensor) -> float:
        from sklearn.metrics import f1_score

        return float(f1_score(true.numpy(), said(scores).numpy(), zero_division=float("nan")))
