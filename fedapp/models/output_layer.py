"""The last layer of a model where its task has constants that clients agree on: it has no parameters, and what it holds
travels with the model, as the constants of the input layer do.

The constants come from the preflight: each client says the moments of `values` of its targets, and the server merges
them.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from fedapp.models.shared_state import always_shared

__all__ = ["ClassWeights", "OutputLayer", "TargetScale"]


class OutputLayer(nn.Module):
    """`width`: of how many values a target moments are wanted; 0 where the constants are given. `shares`,
    `setting`, `what` and `remedy`: as in fedapp.learning.agreement."""

    width: int
    shares: ClassVar[bool] = False
    setting: ClassVar[str]
    what: ClassVar[str]
    remedy: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        always_shared(self)

    @abstractmethod
    def values(self, targets: Tensor) -> Tensor:
        """(n, width) whose means and deviations over all clients are wanted, of targets (n,)."""

    @abstractmethod
    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Take the constants from the mean and standard deviation (width,) over all clients' training examples."""


class TargetScale(OutputLayer):
    """Outputs (B, 1) for targets of mean 0 and deviation 1 become outputs in the unit of the targets.

    `offset` and `scale` are buffers of shape (); 0 and 1 until they are set.
    """

    setting = "task.kind.scaling=federated"
    what = "the means and deviations of the targets"
    remedy = (
        "task/kind=regression with task.kind.scaling=given, task.kind.mean=... and task.kind.deviation=..., or with"
        " task.kind.scaling=none"
    )
    offset: Tensor
    scale: Tensor

    def __init__(self, mean: float = 0.0, deviation: float = 1.0, *, federated: bool) -> None:
        super().__init__()
        self.width = int(federated)
        self.register_buffer("offset", torch.tensor(float(mean)))
        self.register_buffer("scale", torch.tensor(float(deviation)))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.offset

    def standard(self, x: Tensor) -> Tensor:
        """Outputs or targets, in the unit of the targets, in deviations from their mean."""
        return (x - self.offset.to(x.device)) / self.scale.to(x.device)

    def values(self, targets: Tensor) -> Tensor:
        return targets[:, None]

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        mean, std = mean.double().squeeze(), std.double().squeeze()
        constant = std <= torch.finfo(torch.float32).eps * mean.abs()  # what rounding left of a deviation of 0
        self.offset.copy_(mean)
        self.scale.copy_(torch.where(constant, 1.0, std))


class ClassWeights(OutputLayer):
    """Logits as they are; `weights` (classes,) says how much an example of each class counts in the loss.

    Without `given` they are balanced: one over the number of classes times the class's share of all training examples,
    so that each class counts alike and the mean weight of an example is 1. A class that nobody has weighs nothing.
    """

    shares = True
    setting = "task.loss.class_weights=balanced"
    what = "the counts by class"
    remedy = "task.loss.class_weights={<class>: <weight>, ...}, of public frequencies"
    weights: Tensor

    def __init__(self, classes: int, given: Sequence[float] | None = None) -> None:
        super().__init__()
        self.width, self._classes = 0 if given is not None else classes, classes
        self.register_buffer("weights", torch.ones(classes) if given is None else torch.tensor(list(given)).float())

    def forward(self, x: Tensor) -> Tensor:
        return x

    def of(self, targets: Tensor) -> Tensor:
        """(B,) of class indices (B,)."""
        return self.weights.to(targets.device)[targets]

    def values(self, targets: Tensor) -> Tensor:
        return nn.functional.one_hot(targets, self._classes).float()

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        present = mean > 0
        balanced = 1 / (present.sum() * torch.where(present, mean, 1.0))
        self.weights.copy_(torch.where(present, balanced, 0.0))
