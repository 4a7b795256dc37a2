"""Metrics of probabilities: outputs (n, classes), targets (n,) class indices."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedapp.learning.metrics.metric import Metric

__all__ = ["Brier", "CalibrationError"]


class Brier(Metric):
    """Brier score as scikit-learn has it: of two classes the mean squared error of the probability, of several the sum
    of that over the classes."""

    serves: ClassVar[str] = "classification"
    lower_is_better: ClassVar[bool] = True
    highest: ClassVar[float] = 2.0

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        chances, classes = torch.softmax(outputs.double(), 1), outputs.shape[1]
        squares = (chances - torch.nn.functional.one_hot(targets, classes)).square().sum(1).mean()
        return float(squares / 2 if classes == 2 else squares)


@dataclass(frozen=True)
class CalibrationError(Metric):
    """Expected calibration error: how far confidence is from accuracy, the mean over `bins` of equal width by their
    number of examples (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017)."""

    serves: ClassVar[str] = "classification"
    lower_is_better: ClassVar[bool] = True
    bins: Annotated[int, Field(ge=1)] = 15

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        confidence, said = torch.softmax(outputs.double(), 1).max(1)
        place = (confidence * self.bins).ceil().long().clamp(1, self.bins) - 1
        gaps = torch.zeros(self.bins, dtype=torch.float64).index_add_(0, place, confidence - (said == targets).double())
        return float(gaps.abs().sum() / len(targets))
