"""strategy.max_update_norm: a larger update is rejected where the server sees it as it was sent, else scaled down."""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedapp.updates.step import StepState, UpdateRejected, UpdateStep
from fedapp.wire.instruction import Params

__all__ = ["NormLimit"]

SLACK = 1e-9  # of float64 arithmetic, as a share
ROUNDED = 1e-6  # of float32, as a share


@dataclass(frozen=True)
class NormLimit(UpdateStep):
    """No update has an L2 norm above `largest`; so, by the triangle inequality, no sum of updates has a norm above
    `largest` times its weight. `scales`: clients scale larger ones down. `decoded`: what the server looks at was
    encoded, whose rounding makes an honest update longer; there a longer one is scaled down, and not rejected."""

    largest: float
    scales: bool = False
    decoded: bool = False

    def unseen(self) -> "NormLimit":
        return replace(self, scales=True)

    def on_client(self, vector: Tensor, weight: float, params: Params, state: StepState) -> Tensor:
        return self._within(vector, 1.0, shortens=self.scales)

    def on_reply(self, vector: Tensor, weight: float, params: Params) -> Tensor:
        return self._within(vector, weight, shortens=self.decoded)

    def _within(self, vector: Tensor, weight: float, *, shortens: bool) -> Tensor:
        norm, largest = _norm(vector), self.largest * weight
        if shortens and largest < norm < math.inf:
            return (vector.double() * (largest * (1 - ROUNDED) / norm)).to(vector.dtype)
        if norm > largest * (1 if weight == 1 else 1 + SLACK):
            of = "" if weight == 1 else f" times its weight {weight:.4g}"
            raise UpdateRejected(f"update norm {norm:.4g} above {self.largest:g}{of}")
        return vector

    def on_total(
        self, vector: Tensor, weight: float, survivors: Collection[int], params: Params, rounding: float
    ) -> Tensor:
        norm = _norm(vector)
        if norm > self.largest * weight * (1 + SLACK) + rounding:
            raise UpdateRejected(f"the mean update's norm {norm / weight:.4g} is above {self.largest:g}")
        return vector


def _norm(vector: Tensor) -> float:
    """In float64; infinite where a value is not finite, so that it is above any limit."""
    norm = float(torch.linalg.vector_norm(vector, dtype=torch.float64))
    return norm if math.isfinite(norm) else math.inf
