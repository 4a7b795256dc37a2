"""Metrics of the next token. They are of scores (n, T, 2) in place of logits, which are too large to be kept: of each
token the log-probability, in nats, and its rank from 0 among those that are part of a text; a rank of -1 marks what is
not counted. Targets (n, T) are token indices. All tokens of all examples count alike."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedapp.learning.metrics.metric import Metric

__all__ = ["Perplexity", "TokenTopK"]


MOST_NATS = 700.0  # beyond which float64 has no power of e


class TokenMetric(Metric):
    serves: ClassVar[str] = "next_token"

    def on_draws(self, outputs: Tensor, targets: Tensor, counts: Tensor) -> Tensor:
        weights, counted = counts.double(), outputs[..., 1] >= 0
        sums = torch.where(counted, self.of_tokens(outputs), 0.0).double().sum(1)
        return self.of_mean((weights @ sums) / (weights @ counted.double().sum(1)))  # 0/0, NaN, where none is counted

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        return float(self.on_draws(outputs, targets, torch.ones(1, len(outputs), dtype=torch.int64)))

    def of_tokens(self, scores: Tensor) -> Tensor:
        """(n, T) of scores (n, T, 2): what is averaged."""
        raise NotImplementedError

    def of_mean(self, mean: Tensor) -> Tensor:
        """The metric of its mean over tokens."""
        return mean


@dataclass(frozen=True)
class TokenTopK(TokenMetric):
    """Share of tokens that are among the `k` most probable ones."""

    k: Annotated[int, Field(ge=1)] = 1

    def of_tokens(self, scores: Tensor) -> Tensor:
        return (scores[..., 1] < self.k).double()


class Perplexity(TokenMetric):
    """e to the mean negative log-probability: between how many equally likely tokens the model wavers."""

    lower_is_better: ClassVar[bool] = True
    lowest: ClassVar[float] = 1.0
    highest: ClassVar[float] = math.inf

    def to_average(self, value: float) -> float:
        return math.log(max(value, self.lowest)) if value == value else value

    def of_average(self, mean: float) -> float:
        return math.exp(min(mean, MOST_NATS))

    def of_tokens(self, scores: Tensor) -> Tensor:
        return -scores[..., 0]

    def of_mean(self, mean: Tensor) -> Tensor:
        return mean.exp()
