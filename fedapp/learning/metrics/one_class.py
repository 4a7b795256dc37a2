"""What metrics of one class against the rest have in common."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from fedapp.common.errors import ConfigError
from fedapp.data.source import Schema
from fedapp.learning.metrics.metric import Metric

__all__ = ["OneClass"]


@dataclass(frozen=True)
class OneClass(Metric):
    """A metric of the class `positive`. Where that is None it is the second of two classes; of several the mean over
    those that occur is taken. `index`: the place of that class, which `of` finds."""

    serves: ClassVar[str] = "classification"
    positive: str | int | None = None
    index: int | None = None

    def of(self, schema: Schema) -> Self:
        """Raises ConfigError for a class that the data does not have."""
        if self.positive is None:
            return replace(self, index=1 if len(schema.classes) == 2 else None)
        if str(self.positive) not in schema.classes:
            raise ConfigError(
                f"task.metrics: {self.name}.positive={self.positive}: no such class; known: {', '.join(schema.classes)}"
            )
        return replace(self, index=schema.classes.index(str(self.positive)))

    def averaged(self, targets: Tensor, score: Callable[[Any, int], float]) -> float:
        """Of `score(truth, index)`, where `truth` is a NumPy array (n,) of whether each example is of that class."""
        chosen = torch.unique(targets).tolist() if self.index is None else [self.index]
        found = [score((targets == index).numpy(), index) for index in chosen]
        return sum(found) / len(found)
