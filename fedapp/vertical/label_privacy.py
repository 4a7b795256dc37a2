"""What the label party does so that the gradients that it sends say less of its labels."""

import math
from abc import ABC
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fedapp.common.errors import ConfigError
from fedapp.learning.task import Task

__all__ = ["GradientNoise", "LabelDP", "LabelPrivacy", "NoLabelPrivacy"]


class LabelPrivacy(ABC):
    """`random`: whether it draws noise, so that no two runs are alike. `left_open`: what it does not hide, for the
    preflight."""

    random: ClassVar[bool] = False
    left_open: ClassVar[str]

    @property
    def budget(self) -> float | None:
        """Epsilon of label differential privacy, where there is any."""
        return None

    def check(self, task: Task) -> None:  # noqa: B027 (most serve any)
        """Raises ConfigError for a task that it does not serve."""

    def training_targets(self, targets: Tensor, classes: int) -> Tensor:
        """The targets to train on, drawn once."""
        return targets

    def gradient(self, gradient: Tensor, targets: Tensor) -> Tensor:
        """What is sent in place of the `gradient` (B, width) of a batch with these targets."""
        return gradient


@dataclass(frozen=True)
class NoLabelPrivacy(LabelPrivacy):
    left_open: ClassVar[str] = (
        "gradients tell the other parties most labels of the training data, by their norms and directions"
        " (vertical.label_privacy=none)"
    )


@dataclass(frozen=True)
class GradientNoise(LabelPrivacy):
    """Gaussian noise along the difference of the classes' mean gradients, and less of it in all directions, as Marvell
    shapes it (Li et al. 2022, "Label Leakage and Protection in Two-party Split Learning", ICLR).

    Marvell solves for the covariance by batch; here the standard deviation along the difference is `scale` times its
    length, plus a quarter of that over all directions. It promises no epsilon.
    """

    random: ClassVar[bool] = True
    left_open: ClassVar[str] = "noisy gradients still tell something of labels, and promise no epsilon"
    scale: Annotated[float, Field(gt=0, le=1000)] = 3.0

    def check(self, task: Task) -> None:
        if len(task.schema.classes) != 2:
            raise ConfigError("vertical.label_privacy=noise: is for two classes; use label_dp, or none")

    def gradient(self, gradient: Tensor, targets: Tensor) -> Tensor:
        one, other = gradient[targets == 1], gradient[targets != 1]
        random = np.random.Generator(np.random.PCG64())  # seeded by the operating system
        if not len(one) or not len(other):
            away, size = torch.zeros(gradient.shape[1]), float(gradient.norm(dim=1).max())
        else:
            difference = one.mean(0) - other.mean(0)
            size = float(difference.norm())
            away = difference / max(size, 1e-30)
        along = torch.from_numpy(random.standard_normal((len(gradient), 1))).float()
        around = torch.from_numpy(random.standard_normal(tuple(gradient.shape))).float()
        spread = around / math.sqrt(gradient.shape[1])
        return gradient + self.scale * size * (along * away + spread / 4)


@dataclass(frozen=True)
class LabelDP(LabelPrivacy):
    """k-ary randomised response (Warner 1965; Ghazi et al. 2021, "Deep Learning with Label Differential Privacy"): a
    label stays with probability e^epsilon / (e^epsilon + k - 1), else it is any other one."""

    random: ClassVar[bool] = True
    left_open: ClassVar[str] = "what the columns of the other parties themselves say of labels"
    epsilon: Annotated[float, Field(gt=0, le=50)] = 1.0

    @property
    def budget(self) -> float:
        return self.epsilon

    def check(self, task: Task) -> None:
        if not task.schema.classes:
            raise ConfigError("vertical.label_privacy=label_dp: is for classes, and the target is a number; use none")

    def training_targets(self, targets: Tensor, classes: int) -> Tensor:
        random = np.random.Generator(np.random.PCG64())  # seeded by the operating system
        keep = math.exp(self.epsilon) / (math.exp(self.epsilon) + classes - 1)
        kept = torch.from_numpy(random.random(len(targets)) < keep)
        shift = torch.from_numpy(random.integers(1, classes, len(targets)))
        return torch.where(kept, targets, (targets + shift) % classes)
