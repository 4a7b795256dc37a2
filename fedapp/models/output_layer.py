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

from fedapp.models.shared_state import always_shared, keep_constant

__all__ = ["ClassWeights", "LabelWeights", "OutputLayer", "TargetScale"]


class OutputLayer(nn.Module):
    """`width`: of how many values a target moments are wanted; 0 where the constants are given. `shares`,
    `setting`, `what` and `remedy`: as in fedapp.learning.agreement."""

    width: int
    shares: int = 0
    setting: ClassVar[str]
    what: ClassVar[str]
    remedy: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        always_shared(self)
        keep_constant(self)

    @abstractmethod
    def values(self, targets: Tensor) -> Tensor:
        """(n, width) whose means and deviations over all clients are wanted, of targets (n, ...)."""

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

    setting = "task.loss.class_weights=balanced"
    what = "the counts by class"
    remedy = "task.loss.class_weights={<class>: <weight>, ...}, of public frequencies"
    weights: Tensor

    def __init__(self, classes: int, given: Sequence[float] | None = None) -> None:
        super().__init__()
        self.width, self._classes = 0 if given is not None else classes, classes
        self.shares = classes
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


class LabelWeights(OutputLayer):
    """Logits (B, labels) as they are; `weights` (2, labels) says how much it counts in the loss that an example does
    not have a label, and that it has it.

    Without `given`, which are of having it, they are balanced: one over twice the share of all training examples that
    do so, so that both count alike and the mean weight of an example is 1. What all examples have, or none, counts 1.
    """

    setting = "task.loss.class_weights=balanced"
    what = "the counts by label"
    remedy = "task.loss.class_weights={<label>: <weight>, ...}, of public frequencies"
    weights: Tensor

    def __init__(self, labels: int, given: Sequence[float] | None = None) -> None:
        super().__init__()
        self.width, self.shares = 0 if given is not None else 2 * labels, 2
        self.register_buffer("weights", torch.ones(2, labels))
        if given is not None:
            self.weights[1] = torch.tensor(list(given))

    def forward(self, x: Tensor) -> Tensor:
        return x

    def of(self, targets: Tensor) -> Tensor:
        """(B, labels) of 0 and 1 (B, labels)."""
        without, having = self.weights.to(targets.device)
        weights: Tensor = without + (having - without) * targets
        return weights

    def values(self, targets: Tensor) -> Tensor:
        """(n, 2 * labels): label by label, whether an example does not have it, and whether it has it."""
        return torch.stack([1 - targets, targets], 2).flatten(1)

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        shares = mean.view(-1, 2).T
        told = (shares > 0).all(0)
        self.weights.copy_(torch.where(told, 0.5 / torch.where(told, shares, 1.0), 1.0))
