"""The loss of the next token: of logits (B, T, tokens) and token indices (B, T)."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own idiom)
from torch import Tensor

from fedapp.data.source import Schema
from fedapp.data.text.vocabulary import PADDING, UNKNOWN
from fedapp.learning.losses.loss import Loss

__all__ = ["TokenCrossEntropy", "outside"]


@dataclass(frozen=True)
class TokenCrossEntropy(Loss):
    """Cross entropy of each token. An example's loss is the mean over its tokens but for padding and unknown ones
    (`uncounted`), in nats, and 0 where it has no other; so that no example counts more than another, however long it
    is, and each one's gradient is of one size for clipping."""

    serves: ClassVar[str] = "next_token"
    uncounted: tuple[int, ...] = (PADDING, UNKNOWN)

    def of(self, schema: Schema) -> Self:
        return self if schema.text is None else replace(self, uncounted=schema.text.uncounted)

    def per_example(self, outputs: Tensor, targets: Tensor) -> Tensor:
        flat = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none")
        counted = outside(targets, self.uncounted)
        # Where, not times: a token that is not counted must not matter even where its loss is infinite.
        losses = torch.where(counted, flat.view(targets.shape), 0.0)
        return losses.sum(1) / counted.sum(1).clamp(min=1)


def outside(targets: Tensor, indices: tuple[int, ...]) -> Tensor:
    """Which of `targets` (...) are none of `indices`: bool (...)."""
    found = torch.ones_like(targets, dtype=torch.bool)
    for index in indices:
        found = found & (targets != index)
    return found
