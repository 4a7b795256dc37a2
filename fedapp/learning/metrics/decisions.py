"""Metrics of what a classifier decides: outputs (n, classes), of which the largest wins; targets (n,) class indices.

All are scikit-learn's, which is imported where it is used: it takes a second, and few runs need it.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from fedapp.learning.metrics.metric import Metric
from fedapp.learning.metrics.one_class import OneClass

__all__ = ["F1", "Matthews", "Precision", "Recall", "Specificity", "TopK"]

NONE = float("nan")  # where there is nothing to count


class Precision(OneClass):
    """Share of those said to be of the class that are; 0 where none are said to be."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        from sklearn.metrics import precision_score  # type: ignore[import-untyped]

        said = outputs.argmax(1)
        return self.averaged(targets, lambda true, i: precision_score(true, (said == i).numpy(), zero_division=0.0))


class Recall(OneClass):
    """Share of the class that is found (sensitivity). NaN where none are of the class."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        from sklearn.metrics import recall_score

        said = outputs.argmax(1)
        return self.averaged(targets, lambda true, i: recall_score(true, (said == i).numpy(), zero_division=NONE))


class Specificity(OneClass):
    """Share of the others that is not said to be of the class. NaN where there are no others."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        from sklearn.metrics import recall_score

        said = outputs.argmax(1)
        return self.averaged(targets, lambda true, i: recall_score(~true, (said != i).numpy(), zero_division=NONE))


class F1(OneClass):
    """Harmonic mean of precision and recall. NaN where none are of the class, or said to be."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        from sklearn.metrics import f1_score

        said = outputs.argmax(1)
        return self.averaged(targets, lambda true, i: f1_score(true, (said == i).numpy(), zero_division=NONE))


class Matthews(Metric):
    """Matthews correlation coefficient: 1 is perfect, 0 what guessing achieves."""

    serves: ClassVar[str] = "classification"
    lowest: ClassVar[float] = -1.0

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        from sklearn.metrics import matthews_corrcoef

        return float(matthews_corrcoef(targets.numpy(), outputs.argmax(1).numpy()))


@dataclass(frozen=True)
class TopK(Metric):
    """Share of examples whose true class is among the `k` most probable ones."""

    serves: ClassVar[str] = "classification"
    k: Annotated[int, Field(ge=1)] = 5

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        best = outputs.topk(min(self.k, outputs.shape[1]), 1).indices
        return float((best == targets[:, None]).any(1).double().mean())
