"""Metrics for one class out of several: outputs (n, classes), targets (n,) class indices."""

from typing import ClassVar

import torch
from torch import Tensor

from fedapp.learning.metrics.draws import by_score
from fedapp.learning.metrics.metric import Metric

__all__ = ["Accuracy", "Auc", "AucPresent", "BalancedAccuracy", "F1Macro"]


class Accuracy(Metric):
    serves: ClassVar[str] = "classification"

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        return float((outputs.argmax(1) == targets).double().mean())

    def on_draws(self, outputs: Tensor, targets: Tensor, counts: Tensor) -> Tensor:
        weights = counts.double()
        return weights @ (outputs.argmax(1) == targets).double() / weights.sum(1)


class BalancedAccuracy(Metric):
    """Mean recall over the classes that occur in `targets`."""

    serves: ClassVar[str] = "classification"

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        # Imported here: sklearn takes a second, and few runs need it.
        from sklearn.metrics import recall_score  # type: ignore[import-untyped]

        # sklearn's balanced_accuracy_score warns where a class is predicted that does not occur, which is no fault.
        found, there = outputs.argmax(1).numpy(), torch.unique(targets).numpy()
        return float(recall_score(targets.numpy(), found, labels=there, average="macro", zero_division=0.0))

    def on_draws(self, outputs: Tensor, targets: Tensor, counts: Tensor) -> Tensor:
        """Of each draw over the classes that occur in it."""
        weights = counts.double()
        mine = torch.nn.functional.one_hot(targets, outputs.shape[1]).double()
        hits = mine * (outputs.argmax(1) == targets).double()[:, None]
        there, found = weights @ mine, weights @ hits
        return (found / there).nansum(1) / (there > 0).sum(1)


class F1Macro(Metric):
    serves: ClassVar[str] = "classification"

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        from sklearn.metrics import f1_score

        return float(f1_score(targets.numpy(), outputs.argmax(1).numpy(), average="macro", zero_division=0.0))


class Auc(Metric):
    """Area under the ROC curve; for several classes the mean of one against the rest. NaN where a class is absent."""

    serves: ClassVar[str] = "classification"

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        from sklearn.metrics import roc_auc_score

        if len(torch.unique(targets)) < outputs.shape[1]:
            return float("nan")
        scores = torch.softmax(outputs.double(), 1).numpy()
        if outputs.shape[1] == 2:
            return float(roc_auc_score(targets.numpy(), scores[:, 1]))
        return float(roc_auc_score(targets.numpy(), scores, multi_class="ovr"))

    def on_draws(self, outputs: Tensor, targets: Tensor, counts: Tensor) -> Tensor:
        """Of two classes: the share of pairs that are in order, where equal scores count by half (Mann & Whitney)."""
        if outputs.shape[1] != 2:
            return super().on_draws(outputs, targets, counts)
        ups, downs = by_score(torch.softmax(outputs.double(), 1)[:, 1], targets == 1, counts)
        below = downs.cumsum(1) - downs / 2
        return (ups * below).sum(1) / (ups.sum(1) * downs.sum(1))  # 0/0, NaN, where a class is absent


class AucPresent(Metric):
    """Mean area under the ROC curve of one class against the rest, over the classes that occur; NaN where only one
    does."""

    serves: ClassVar[str] = "classification"

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        from sklearn.metrics import roc_auc_score

        present = torch.unique(targets).tolist()
        if len(present) < 2:
            return float("nan")
        scores = torch.softmax(outputs.double(), 1)
        areas = [float(roc_auc_score((targets == index).numpy(), scores[:, index].numpy())) for index in present]
        return sum(areas) / len(areas)
