"""Figures that tell how good a model's outputs are."""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fedapp.common.errors import ConfigError

__all__ = ["CLASSIFICATION", "LOWER_IS_BETTER", "REGRESSION", "Metric", "choose", "possible"]

Metric = Callable[[Tensor, Tensor], float]  # (outputs (n, k) or (n, 1), targets (n,)) -> figure


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    return float((outputs.argmax(1) == targets).double().mean())


def balanced_accuracy(outputs: Tensor, targets: Tensor) -> float:
    """Mean recall over the classes that occur in `targets`."""
    # Imported here: sklearn takes a second, and few runs need it.
    from sklearn.metrics import balanced_accuracy_score  # type: ignore[import-untyped]

    return float(balanced_accuracy_score(targets.numpy(), outputs.argmax(1).numpy()))


def f1_macro(outputs: Tensor, targets: Tensor) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(targets.numpy(), outputs.argmax(1).numpy(), average="macro", zero_division=0.0))


def auc(outputs: Tensor, targets: Tensor) -> float:
    """Area under the ROC curve; for several classes the mean of one against the rest. NaN where a class is absent."""
    from sklearn.metrics import roc_auc_score

    if len(torch.unique(targets)) < outputs.shape[1]:
        return float("nan")
    scores = torch.softmax(outputs.double(), 1).numpy()
    if outputs.shape[1] == 2:
        return float(roc_auc_score(targets.numpy(), scores[:, 1]))
    return float(roc_auc_score(targets.numpy(), scores, multi_class="ovr"))


def mae(outputs: Tensor, targets: Tensor) -> float:
    return float((outputs.squeeze(1) - targets).abs().double().mean())


def r2(outputs: Tensor, targets: Tensor) -> float:
    from sklearn.metrics import r2_score

    return float(r2_score(targets.numpy(), outputs.squeeze(1).numpy())) if len(targets) > 1 else float("nan")


# The first of each is the one that every client reports of its validation split.
CLASSIFICATION: Mapping[str, Metric] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "f1_macro": f1_macro,
    "auc": auc,
}
REGRESSION: Mapping[str, Metric] = {"mae": mae, "r2": r2}
LOWER_IS_BETTER = frozenset({"loss", "mae"})


def possible(name: str, value: float) -> bool:
    """Whether a metric or the loss can have this value at all; what a client reports may be made up."""
    highest = math.inf if name in LOWER_IS_BETTER else 1.0
    lowest = -math.inf if name == "r2" else 0.0
    return lowest <= value <= highest


def choose(names: object, *, classification: bool) -> dict[str, Metric]:
    """The metrics named by `task.metrics`, the one that clients report first. Raises ConfigError for unknown names."""
    known = CLASSIFICATION if classification else REGRESSION
    first = next(iter(known))
    chosen = [first] if names == "auto" else names
    if not isinstance(chosen, list) or not all(isinstance(name, str) and name in known for name in chosen):
        kind = "classification" if classification else "regression"
        raise ConfigError(f"task.metrics={names}: must be auto or a list out of {', '.join(known)} ({kind})")
    return {name: known[name] for name in [first, *(name for name in chosen if name != first)]}
