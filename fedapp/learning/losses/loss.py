"""What a loss is to the rest of the app."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor

from fedapp.data.source import Schema
from fedapp.models.output_layer import OutputLayer

__all__ = ["Loss", "auto"]


@dataclass(frozen=True)
class Loss(ABC):
    """A loss for tasks of the kind `serves`. No mean of it is below `lowest`: the server does not count what a client
    reports below that."""

    serves: ClassVar[str]
    lowest: ClassVar[float] = 0.0

    @property
    def layer(self) -> OutputLayer | None:
        """The model's last layer, where the loss has constants that travel with the model."""
        return None

    def of(self, schema: Schema) -> Self:
        """This loss for data of this form. Raises ConfigError where it cannot serve that."""
        return self

    @abstractmethod
    def per_example(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """(B,) losses of outputs (B, *output_shape). No branch on values, so that it works under vmap and Opacus."""

    def mean(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean over the batch, of shape ()."""
        return self.per_example(outputs, targets).mean()


def auto() -> None:
    """No loss in particular: the task takes that of its kind."""
