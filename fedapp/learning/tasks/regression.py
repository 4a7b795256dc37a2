"""One number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from fedapp.common.errors import ConfigError, DataError
from fedapp.learning.losses import Loss
from fedapp.learning.losses.regression import SquaredError
from fedapp.learning.metrics import Metric
from fedapp.learning.metrics.regression import MeanAbsoluteError
from fedapp.learning.task import Task
from fedapp.models.output_layer import OutputLayer, TargetScale

__all__ = ["Regression"]


@dataclass(frozen=True)
class Regression(Task):
    """Outputs are (B, 1), targets numbers (B,). Raises ConfigError for data with classes.

    The network works with targets of mean 0 and deviation 1, and so does the loss; outputs, and with them predictions
    and metrics, are in the unit of the targets. `scaling` says whose mean and deviation: those over all clients
    (federated), `mean` and `deviation` (given), or none, and the network works with targets as they are. `layer` holds
    them, as the model's last layer.
    """

    kind: ClassVar[str] = "regression"
    scaling: Literal["federated", "given", "none"] = "federated"
    mean: float | None = None
    deviation: Annotated[float, Field(gt=0)] | None = None
    layer: TargetScale | None = None
    criterion: Loss = field(default_factory=SquaredError)
    metrics: Mapping[str, Metric] = field(default_factory=lambda: {"mae": MeanAbsoluteError("mae")})

    def __post_init__(self) -> None:
        if self.schema.classes:
            raise ConfigError("task.kind=regression: the data's target is a class, not a number; use auto")
        given = self.mean is not None, self.deviation is not None
        if given != ((self.scaling == "given"),) * 2:
            raise ConfigError(
                f"task.kind.mean={self.mean}, task.kind.deviation={self.deviation}: both are needed with"
                f" task.kind.scaling=given, and have no effect with another; it is {self.scaling}"
            )
        if self.scaling in ("federated", "given") and self.layer is None:
            constants = (self.mean or 0.0, self.deviation or 1.0)
            object.__setattr__(self, "layer", TargetScale(*constants, federated=self.scaling == "federated"))

    def output_layer(self) -> OutputLayer | None:
        return self.layer

    @property
    def unit(self) -> float:
        return self.deviation or 1.0

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.criterion.mean(self._standard(outputs), self._standard(targets))

    def loss_per_example(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.criterion.per_example(self._standard(outputs), self._standard(targets))

    def _standard(self, values: Tensor) -> Tensor:
        return values if self.layer is None else self.layer.standard(values)

    def example_targets(self, count: int) -> Tensor:
        return torch.zeros(count)

    def check_targets(self, targets: Tensor, name: str) -> None:
        if targets.dim() != 1:
            raise DataError(f"{name}: targets have shape {tuple(targets.shape)}, one number an example is needed")
        if not torch.isfinite(targets).all():
            raise DataError(f"{name}: a target is NaN or infinite")

    @property
    def columns(self) -> tuple[str, ...]:
        return ("prediction",)

    def row(self, prediction: Sequence[float]) -> list[str]:
        return [f"{prediction[0]:.9g}"]

    def line(self, prediction: Sequence[float]) -> list[str]:
        return self.row(prediction)
