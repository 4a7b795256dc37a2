"""Random examples of any shape and number, for benchmarks and for trying things out: no network, no files."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch

from fedapp.common.errors import ConfigError
from fedapp.common.seeding import generator
from fedapp.data.source import DataSource, Examples, Pooled, Schema

__all__ = ["Synthetic"]

ROWS = 4096  # made at a time, so that nothing larger than the data itself is held


@dataclass(frozen=True)
class Synthetic(DataSource):
    """Gaussian clouds that can be learnt, or for regression a noisy linear function of Gaussian inputs.

    An example of class k is `separation` times a random unit vector of that class plus standard normal noise, as
    float32 of `shape`. With `num_classes` None its target is `separation` times its projection onto a random direction,
    plus standard normal noise. What is made depends on the arguments alone. Raises ConfigError for what is no data.
    """

    shape: Sequence[int] = (1, 28, 28)
    num_examples: int = 10_000
    num_classes: int | None = 10
    test_examples: int = 1_000
    separation: float = 4.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.shape or any(side < 1 for side in self.shape):
            raise ConfigError(f"data.shape={list(self.shape)}: sizes of one example, each at least 1, e.g. [1,28,28]")
        for key, least in (("num_examples", 1), ("test_examples", 0), ("separation", 0)):
            if not getattr(self, key) >= least:
                raise ConfigError(f"data.{key}={getattr(self, key)}: must be at least {least}")
        if self.num_classes is not None and self.num_classes < 2:
            raise ConfigError(f"data.num_classes={self.num_classes}: must be at least 2, or null for regression")

    def schema(self) -> Schema:
        shape = tuple(self.shape)
        features = tuple(f"x{i}" for i in range(shape[0])) if len(shape) == 1 else ()
        return Schema(shape, tuple(str(k) for k in range(self.num_classes or 0)), features)

    def pooled(self) -> Pooled:
        return Pooled(self._make("train", self.num_examples), self.test())

    def test(self) -> Examples | None:
        return self._make("test", self.test_examples) if self.test_examples else None

    def _make(self, part: str, count: int) -> Examples:
        random, size = generator("synthetic", self.seed, part), prod(self.shape)
        directions = torch.randn(self.num_classes or 1, size, generator=generator("synthetic", self.seed, "directions"))
        directions *= self.separation / directions.norm(dim=1, keepdim=True)
        inputs = torch.randn(count, size, generator=random)
        if self.num_classes is None:
            targets = inputs @ directions[0] + torch.randn(count, generator=random)
        else:
            targets = torch.randint(self.num_classes, (count,), generator=random)
            for start in range(0, count, ROWS):
                inputs[start : start + ROWS] += directions[targets[start : start + ROWS]]
        return Examples(inputs.view(count, *self.shape), targets)
