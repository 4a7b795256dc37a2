"""A task: what the model's inputs, outputs and targets are, its loss, and the metrics that judge it."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fedapp.common.errors import ConfigError
from fedapp.data.source import Examples, Schema
from fedapp.learning.agreement import Agreement, of_inputs, of_targets
from fedapp.learning.logit_adjustment import LogitAdjustment
from fedapp.learning.losses import Loss
from fedapp.learning.metrics import Metric
from fedapp.models.input_layer import input_layer
from fedapp.models.output_layer import OutputLayer

__all__ = ["Evaluation", "Task", "outputs_of"]

EVALUATION_BATCH = 1024


@dataclass(frozen=True)
class Evaluation:
    """Mean loss and metrics over `num_examples` examples."""

    num_examples: int
    loss: float
    metrics: Mapping[str, float]


@torch.no_grad()
def outputs_of(model: nn.Module, examples: Examples) -> Tensor:
    """(n, *output_shape) in evaluation mode, on the CPU."""
    device = next(model.parameters()).device
    model.eval()
    chunks = torch.split(examples.inputs, EVALUATION_BATCH)
    return torch.cat([model(chunk.to(device)).cpu() for chunk in chunks])


@dataclass(frozen=True)
class Task(ABC):
    """The base of every kind in learning/tasks/. `metrics` opens with the one that stands for
    the task. Losses and metrics serve a `kind`; a subclass of a kind that keeps its name takes the same ones."""

    kind: ClassVar[str]
    schema: Schema
    criterion: Loss
    metrics: Mapping[str, Metric]

    @property
    def main_metric(self) -> str:
        return next(iter(self.metrics))

    @property
    def main(self) -> Metric:
        return self.metrics[self.main_metric]

    @property
    def unit(self) -> float:
        """How large targets typically are, as far as the config says it: for what must bound a metric that has none."""
        return 1.0

    # --- the data and the model ------------------------------------------------------------------------------------

    @property
    def output_shape(self) -> tuple[int, ...]:
        """What the model gives of one example."""
        return (self.schema.num_outputs,)

    def input_layer(self) -> nn.Module:
        """The first layer of every model, which takes inputs as they are stored."""
        return input_layer(self.schema)

    def output_layer(self) -> OutputLayer | None:
        """The last layer of every model, where the task has constants; always the same object."""
        return self.criterion.layer

    @property
    def agreements(self) -> tuple[Agreement, ...]:
        """What clients and server agree on in the preflight, in this order."""
        features = [of_inputs(self.schema)] if self.schema.scaling.kind == "federated" else []
        layer = self.output_layer()
        return (*features, *([of_targets(layer)] if layer is not None and layer.width else []))

    def example_inputs(self, count: int) -> Tensor:
        """Valid inputs (count, *input_shape) for trials."""
        return torch.zeros(count, *self.schema.input_shape, dtype=self.schema.input_dtype)

    @abstractmethod
    def example_targets(self, count: int) -> Tensor:
        """Valid targets (count, ...) for trials."""

    @abstractmethod
    def check_targets(self, targets: Tensor, name: str) -> None:
        """Raises DataError, opening with `name`, for targets that the task cannot have."""

    def check(self, examples: Examples, name: str) -> Examples:
        """These examples, if they fit the task; else a DataError that opens with `name`."""
        examples.check(self.schema, name)
        self.check_targets(examples.targets, name)
        return examples

    # --- training and evaluation -----------------------------------------------------------------------------------

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss, of shape (), of outputs (B, *output_shape)."""
        return self.criterion.mean(outputs, targets)

    def loss_per_example(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The same, of each example: (B,)."""
        return self.criterion.per_example(outputs, targets)

    def adjustment(self, tau: float) -> LogitAdjustment:
        """Of the outputs of training, by how frequent each class is (`train.logit_adjustment`). Raises ConfigError for
        a task without classes that exclude each other."""
        raise ConfigError(
            f"train.logit_adjustment={tau:g}: counts how often each client has each class, and this task is"
            f" {self.kind}; set it to 0"
        )

    def confidences(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(B,): higher, the better the model knows the true target. For the audit of what a model tells of its data."""
        return -self.loss_per_example(outputs, targets)

    def evaluate(self, model: nn.Module, examples: Examples) -> Evaluation | None:
        """Judge `model` on `examples`; None where there are none. Metrics of outputs that are not finite are NaN."""
        if not len(examples):
            return None
        loss, outputs = self.judge(model, examples)
        targets, finite = examples.targets.cpu(), bool(outputs.isfinite().all())
        return Evaluation(
            num_examples=len(examples),
            loss=loss,
            metrics={name: metric(outputs, targets) if finite else math.nan for name, metric in self.metrics.items()},
        )

    def judge(self, model: nn.Module, examples: Examples) -> tuple[float, Tensor]:
        """The mean loss on `examples`, and what metrics take: the outputs (n, *output_shape), or what a kind of task
        keeps of them."""
        outputs = outputs_of(model, examples)
        return float(self.loss(outputs, examples.targets.cpu())), outputs

    def details(self, model: nn.Module, examples: Examples) -> dict[str, Any]:
        """What there is to say of a finished model on `examples` besides metrics, as JSON holds it."""
        return {}

    def undefined(self, name: str, targets: Tensor) -> str:
        """Why the metric `name` is not defined on examples with these targets, whatever the model says of them; ""
        where it is."""
        random = torch.Generator().manual_seed(0)
        outputs = torch.randn(len(targets), *self.output_shape, generator=random)
        value = self.metrics[name](outputs, targets) if len(targets) else math.nan
        return self.lacking(targets) if math.isnan(value) else ""

    def lacking(self, targets: Tensor) -> str:
        """What examples lack on which a metric is not defined."""
        return f"{len(targets)} examples do not define it"

    # --- inference -------------------------------------------------------------------------------------------------

    def predictions(self, outputs: Tensor) -> Tensor:
        """What users are told of outputs (B, *output_shape), such as probabilities. A part of exported models."""
        return outputs

    def told(self, inputs: Tensor, predictions: Tensor) -> Tensor:
        """What of the `predictions` (B, ...) of these inputs (B, *input_shape) users are told; all, unless a kind of
        task says otherwise."""
        return predictions

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """What predictions are as columns of a table."""

    @abstractmethod
    def row(self, prediction: Sequence[float]) -> list[str]:
        """One example's prediction as cells, one for each of `columns`."""

    @abstractmethod
    def line(self, prediction: Sequence[float]) -> list[str]:
        """The same for a terminal: the prediction, and how sure it is where that is known."""
