"""A task: the kind of data, the model, its loss, and the metrics that judge it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own idiom)
from torch import Tensor, nn

from fedapp.data.source import Examples, Schema
from fedapp.learning.metrics import Metric

__all__ = ["Evaluation", "Task"]

EVALUATION_BATCH = 1024


@dataclass(frozen=True)
class Evaluation:
    """Mean loss and metrics over `num_examples` examples."""

    num_examples: int
    loss: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Task:
    """`metrics` opens with the one that clients report of their validation splits."""

    schema: Schema
    metrics: Mapping[str, Metric]

    @property
    def main_metric(self) -> str:
        return next(iter(self.metrics))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of outputs (B, k): cross entropy, or for regression the squared error of outputs (B, 1)."""
        if self.schema.is_classification:
            return F.cross_entropy(outputs, targets)
        return F.mse_loss(outputs.squeeze(1), targets)

    def loss_per_example(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The same, of each example: (B,)."""
        if self.schema.is_classification:
            return F.cross_entropy(outputs, targets, reduction="none")
        return F.mse_loss(outputs.squeeze(1), targets, reduction="none")

    def evaluate(self, model: nn.Module, examples: Examples, *, only_main: bool = False) -> Evaluation | None:
        """Judge `model` on `examples`; None where there are none."""
        if not len(examples):
            return None
        device = next(model.parameters()).device
        model.eval()
        with torch.no_grad():
            chunks = torch.split(examples.inputs, EVALUATION_BATCH)
            outputs = torch.cat([model(chunk.to(device)).cpu() for chunk in chunks])
        targets = examples.targets.cpu()
        chosen = {self.main_metric: self.metrics[self.main_metric]} if only_main else self.metrics
        return Evaluation(
            num_examples=len(examples),
            loss=float(self.loss(outputs, targets)),
            metrics={name: metric(outputs, targets) for name, metric in chosen.items()},
        )
