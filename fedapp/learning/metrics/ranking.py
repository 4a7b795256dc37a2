"""Metrics of how a classifier ranks examples: outputs (n, classes), targets (n,) class indices."""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fedapp.learning.metrics.draws import by_score
from fedapp.learning.metrics.one_class import OneClass

__all__ = ["AveragePrecision", "RecallAtAlarmRate", "RecallAtPrecision"]

Share = Annotated[float, Field(gt=0, le=1)]


def chances(outputs: Tensor) -> Tensor:
    """(n, classes) probabilities in float64."""
    return torch.softmax(outputs.double(), 1)


class AveragePrecision(OneClass):
    """Area under the curve of precision over recall, as scikit-learn has it. NaN where none are of the class."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        from sklearn.metrics import average_precision_score  # type: ignore[import-untyped]

        scores = chances(outputs).numpy()

        def score(true: Any, index: int) -> float:
            return float(average_precision_score(true, scores[:, index])) if true.any() else float("nan")

        return self.averaged(targets, score)

    def on_draws(self, outputs: Tensor, targets: Tensor, counts: Tensor) -> Tensor:
        if self.index is None:
            return super().on_draws(outputs, targets, counts)
        ups, downs = by_score(chances(outputs)[:, self.index], targets == self.index, counts)
        ups, downs = ups.flip(1), downs.flip(1)  # the highest scores first
        found = ups.cumsum(1)
        precision = found / (found + downs.cumsum(1)).clamp(min=1)
        return (ups * precision).sum(1) / ups.sum(1)


@dataclass(frozen=True)
class RecallAtPrecision(OneClass):
    """The largest share of the class that is found by a threshold at which `precision` of those above it are of the
    class. 0 where no threshold does that, NaN where none are of the class."""

    precision: Share = 0.9

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        from sklearn.metrics import precision_recall_curve

        scores = chances(outputs).numpy()

        def score(true: Any, index: int) -> float:
            if not true.any():
                return float("nan")
            precision, recall, _ = precision_recall_curve(true, scores[:, index])
            return float(recall[precision >= self.precision].max())  # the last point has precision 1 and recall 0

        return self.averaged(targets, score)


@dataclass(frozen=True)
class RecallAtAlarmRate(OneClass):
    """The share of the class that is found among the `alarm_rate` of all examples that are ranked highest, rounded down
    but one at least. Of equal scores those count that come first. NaN where none are of the class."""

    alarm_rate: Share = 0.05

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        scores = chances(outputs).numpy()
        alarms = max(1, int(self.alarm_rate * len(targets) + 1e-9))

        def score(true: Any, index: int) -> float:
            highest = np.argsort(-scores[:, index], kind="stable")[:alarms]
            return float(true[highest].sum() / true.sum()) if true.any() else float("nan")

        return self.averaged(targets, score)
