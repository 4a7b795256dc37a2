"""Several labels at once, of which an example has any number."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fedapp.common.errors import ConfigError, DataError
from fedapp.data.source import Examples
from fedapp.learning.losses import Loss
from fedapp.learning.losses.multilabel import BinaryCrossEntropy
from fedapp.learning.metrics import Metric
from fedapp.learning.metrics.multilabel import LabelAuc, LabelAveragePrecision, LabelF1Macro, LabelF1Micro
from fedapp.learning.task import Task, outputs_of

__all__ = ["MultiLabel"]

SEPARATOR = ";"  # between the labels of a prediction
NAMED = 5  # labels in a message


@dataclass(frozen=True)
class MultiLabel(Task):
    """Outputs are logits (B, labels), targets 0 and 1 (B, labels) float32. An example is predicted to have the labels
    of at least 50 % probability. Raises ConfigError where the data has no such labels."""

    kind: ClassVar[str] = "multilabel"
    criterion: Loss = field(default_factory=BinaryCrossEntropy)
    metrics: Mapping[str, Metric] = field(default_factory=lambda: {"label_f1_micro": LabelF1Micro("label_f1_micro")})

    def __post_init__(self) -> None:
        if not self.schema.labels:
            raise ConfigError(
                "task.kind=multilabel: an example of this data has one label. Name several columns of 0 and 1, such as"
                " data.label=[a,b], or set data.label_separator for a column of lists; or use auto"
            )

    def example_targets(self, count: int) -> Tensor:
        return torch.zeros(count, len(self.schema.labels))

    def check_targets(self, targets: Tensor, name: str) -> None:
        width = len(self.schema.labels)
        if targets.dim() != 2 or targets.shape[1] != width:
            raise DataError(f"{name}: labels have shape {tuple(targets.shape)}, (examples, {width}) is needed")
        if targets.dtype != torch.float32:
            raise DataError(f"{name}: labels are {targets.dtype}, several at once must be float32")
        if not ((targets == 0) | (targets == 1)).all():
            raise DataError(f"{name}: a label is neither 0 nor 1")

    def details(self, model: nn.Module, examples: Examples) -> dict[str, Any]:
        """`by_label`: of each label, how many examples have it, and metrics of it alone; None where not defined."""
        if not len(examples):
            return {}
        outputs, targets = outputs_of(model, examples), examples.targets.cpu()
        alone: dict[str, Callable[[str], Metric]] = {
            "average_precision": LabelAveragePrecision,
            "auc": LabelAuc,
            "f1": LabelF1Macro,
        }
        found = []
        for at, label in enumerate(self.schema.labels):
            pair = outputs[:, at : at + 1], targets[:, at : at + 1]
            values = {name: metric(name)(*pair) for name, metric in alone.items()}
            known = {name: None if math.isnan(value) else value for name, value in values.items()}
            found.append({"label": label, "examples": int(pair[1].sum()), **known})
        return {"by_label": found}

    def lacking(self, targets: Tensor) -> str:
        named = [repr(label) for label in self._absent(targets)]
        if not named:
            return super().lacking(targets)
        return f"no example with, or none without, {', '.join(named[:NAMED])}{' ...' if len(named) > NAMED else ''}"

    def _absent(self, targets: Tensor) -> list[str]:
        """Labels that all of the examples have, or none."""
        shares = targets.mean(0).tolist()
        return [label for label, share in zip(self.schema.labels, shares, strict=True) if share in (0.0, 1.0)]

    def predictions(self, outputs: Tensor) -> Tensor:
        """Probabilities (B, labels), each by itself."""
        return outputs.sigmoid()

    @property
    def columns(self) -> tuple[str, ...]:
        return ("prediction", *(f"probability of {label}" for label in self.schema.labels))

    def row(self, prediction: Sequence[float]) -> list[str]:
        return [SEPARATOR.join(self._said(prediction)), *(f"{value:.9g}" for value in prediction)]

    def line(self, prediction: Sequence[float]) -> list[str]:
        """The labels, and the probability of each of them."""
        said = self._said(prediction)
        return [SEPARATOR.join(said) or "-", SEPARATOR.join(f"{value:.4f}" for value in said.values()) or "-"]

    def _said(self, prediction: Sequence[float]) -> dict[str, float]:
        pairs = zip(self.schema.labels, prediction, strict=True)
        return {label: value for label, value in pairs if value >= 0.5}
