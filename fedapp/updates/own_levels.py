"""compression=quantise where the server looks at single updates: each block of an update has a range of its own."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fedapp.updates.levels import level_sum, to_levels
from fedapp.updates.packing import pack_bits, unpack_bits
from fedapp.updates.per_reply import Bytes, PerReply, scaled, scales_and_seed, with_scales
from fedapp.updates.rotation import BlockRotation
from fedapp.updates.step import StepState

__all__ = ["OwnLevels"]

SMALLEST = 1e-30  # of a range that is divided by


@dataclass(frozen=True)
class OwnLevels(PerReply):
    """The range is a block's largest rotated value, so that none lies beyond it, and rounding is unbiased."""

    bits: int

    @property
    def name(self) -> str:
        return "quantise"

    def seeded(self, seed: int) -> "OwnLevels":
        return replace(self, seed=seed)

    def encode(self, update: Tensor, state: StepState) -> Bytes:
        blocks = BlockRotation(len(update), self.seed).forward(update)
        scales = [block.abs().amax(1) for block in blocks]
        shares = [block / scale.clamp_min(SMALLEST)[:, None] for block, scale in zip(blocks, scales, strict=True)]
        levels = to_levels(torch.cat([share.view(-1) for share in shares] or [update]), self.bits, 1.0, self.seed + 2)
        whole = levels.add_(2 ** (self.bits - 1)).to(torch.uint8).numpy()
        return with_scales(torch.cat(scales or [update]), self.seed, pack_bits(whole, self.bits))

    def decode(self, packed: Bytes, length: int) -> Tensor:
        shape = BlockRotation(length, 0)
        scales, seed, rest = scales_and_seed(packed, shape.blocks)
        levels = unpack_bits(rest, self.bits, shape.padded, "u1").astype(np.float32) - 2 ** (self.bits - 1)
        values = level_sum(torch.from_numpy(levels), 1, self.bits, 1.0)
        return BlockRotation(length, seed).backward(scaled(values, scales, shape.shapes))
