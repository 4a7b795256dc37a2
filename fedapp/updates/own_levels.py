"""compression=quantise where the server looks at single updates: each client's levels have a range of its own."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fedapp.updates.levels import level_sum, to_levels
from fedapp.updates.packing import pack_bits, unpack_bits
from fedapp.updates.per_reply import Bytes, PerReply, scale_and_seed, with_scale
from fedapp.updates.rotation import Rotation
from fedapp.updates.step import StepState

__all__ = ["OwnLevels"]


@dataclass(frozen=True)
class OwnLevels(PerReply):
    """The range is the largest rotated value, so that none lies beyond it, and rounding is unbiased."""

    bits: int

    @property
    def name(self) -> str:
        return "quantise"

    def seeded(self, seed: int) -> "OwnLevels":
        return replace(self, seed=seed)

    def encode(self, update: Tensor, state: StepState) -> Bytes:
        rotated = Rotation(len(update), self.seed).forward(update)
        largest = float(rotated.abs().max()) if len(rotated) else 0.0
        levels = to_levels(rotated, self.bits, largest, self.seed + 2) if largest else torch.zeros_like(rotated)
        whole = levels.add_(2 ** (self.bits - 1)).to(torch.uint8).numpy()
        return with_scale(largest, self.seed, pack_bits(whole, self.bits))

    def decode(self, packed: Bytes, length: int) -> Tensor:
        largest, seed, rest = scale_and_seed(packed)
        levels = unpack_bits(rest, self.bits, length, "u1").astype(np.float32) - 2 ** (self.bits - 1)
        return Rotation(length, seed).backward(level_sum(torch.from_numpy(levels), 1, self.bits, largest))
