"""Metrics for one number: outputs (n, 1), targets (n,)."""

import math
from typing import ClassVar

from torch import Tensor

from fedapp.learning.metrics.metric import Metric

__all__ = ["R2", "MeanAbsoluteError"]


class MeanAbsoluteError(Metric):
    serves: ClassVar[str] = "regression"
    lower_is_better: ClassVar[bool] = True
    highest: ClassVar[float] = math.inf

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        return float((outputs.squeeze(1) - targets).abs().double().mean())


class R2(Metric):
    """Coefficient of determination: 1 is perfect, 0 what the mean of the targets achieves. NaN for one example."""

    serves: ClassVar[str] = "regression"
    lowest: ClassVar[float] = -math.inf

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        from sklearn.metrics import r2_score  # type: ignore[import-untyped, unused-ignore]

        return float(r2_score(targets.numpy(), outputs.squeeze(1).numpy())) if len(targets) > 1 else float("nan")
