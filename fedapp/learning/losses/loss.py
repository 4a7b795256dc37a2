"""What a loss is to the rest of the app."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

__all__ = ["Loss", "auto"]


@dataclass(frozen=True)
class Loss(ABC):
    """A loss for tasks of the kind `serves`. No mean of it is below `lowest`: the server does not count what a client
    reports below that."""

    serves: ClassVar[str]
    lowest: ClassVar[float] = 0.0

    @abstractmethod
    def per_example(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(B,) losses of outputs (B, *output_shape). No branch on values, so that it works under vmap and Opacus."""

    def mean(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean over the batch, of shape ()."""
        return self.per_example(outputs, targets).mean()


def auto() -> None:
    """No loss in particular: the task takes that of its kind."""
