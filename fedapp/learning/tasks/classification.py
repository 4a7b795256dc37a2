"""One class out of several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fedapp.common.errors import ConfigError, DataError
from fedapp.data.source import Examples
from fedapp.learning.logit_adjustment import LogitAdjustment
from fedapp.learning.losses import Loss
from fedapp.learning.losses.classification import CrossEntropy
from fedapp.learning.metrics import Metric
from fedapp.learning.metrics.classification import Accuracy
from fedapp.learning.task import Task, outputs_of

__all__ = ["Classification"]


@dataclass(frozen=True)
class Classification(Task):
    """Outputs are logits (B, classes), targets class indices (B,) int64. Raises ConfigError where there are none."""

    kind: ClassVar[str] = "classification"
    criterion: Loss = field(default_factory=CrossEntropy)
    metrics: Mapping[str, Metric] = field(default_factory=lambda: {"accuracy": Accuracy("accuracy")})

    def __post_init__(self) -> None:
        if not self.schema.classes:
            raise ConfigError("task.kind=classification: the data has no classes, its target is a number; use auto")

    def example_targets(self, count: int) -> Tensor:
        return torch.zeros(count, dtype=torch.int64)

    def check_targets(self, targets: Tensor, name: str) -> None:
        classes = len(self.schema.classes)
        if targets.dtype != torch.int64:
            raise DataError(f"{name}: labels are {targets.dtype}, class indices must be int64")
        if targets.dim() != 1:
            raise DataError(f"{name}: labels have shape {tuple(targets.shape)}, one class index an example is needed")
        if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < classes:
            raise DataError(f"{name}: a label index lies outside 0..{classes - 1}")

    def adjustment(self, tau: float) -> LogitAdjustment:
        """Raises ConfigError beside weights by the counts of all clients, which correct the same."""
        layer = self.output_layer()
        if layer is not None and layer.width:
            raise ConfigError(
                f"train.logit_adjustment={tau:g}: corrects the same as {layer.setting}; choose one of both"
            )
        return LogitAdjustment(tau, len(self.schema.classes))

    def details(self, model: nn.Module, examples: Examples) -> dict[str, Any]:
        """`confusion_matrix`: a row for each true class, a column for each predicted one."""
        if not len(examples):
            return {}
        size = len(self.schema.classes)
        pairs = examples.targets.cpu() * size + outputs_of(model, examples).argmax(1)
        counts = torch.bincount(pairs, minlength=size * size).view(size, size)
        return {"confusion_matrix": counts.tolist(), "classes": list(self.schema.classes)}

    def lacking(self, targets: Tensor) -> str:
        absent = [repr(label) for index, label in enumerate(self.schema.classes) if not (targets == index).any()]
        named = f"{', '.join(absent[:5])}{' ...' if len(absent) > 5 else ''}"
        word = "class" if len(absent) == 1 else "classes"
        return f"no example of {word} {named}" if absent else super().lacking(targets)

    def confidences(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """log p - log(1 - p) of the true class, with no rounding near p = 1."""
        own = outputs.gather(1, targets[:, None]).squeeze(1)
        return own - outputs.scatter(1, targets[:, None], -torch.inf).logsumexp(1)

    def predictions(self, outputs: Tensor) -> Tensor:
        """Probabilities (B, classes)."""
        return outputs.softmax(1)

    @property
    def columns(self) -> tuple[str, ...]:
        return ("prediction", *(f"probability of {label}" for label in self.schema.classes))

    def row(self, prediction: Sequence[float]) -> list[str]:
        return [self._label(prediction), *(f"{value:.9g}" for value in prediction)]

    def line(self, prediction: Sequence[float]) -> list[str]:
        return [self._label(prediction), f"{max(prediction):.4f}"]

    def _label(self, prediction: Sequence[float]) -> str:
        return self.schema.classes[prediction.index(max(prediction))]
