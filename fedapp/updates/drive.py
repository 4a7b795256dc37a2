"""compression=drive: one bit a value and one scale a block (DRIVE, Vargaftik et al. 2021, "DRIVE: One-bit Distributed
Mean Estimation"; EDEN, Vargaftik et al. 2022).

A client rotates each block of its update by signs of its own, and sends the signs of the rotated values. Scaled by
|x|^2 / |R x|_1 they are unbiased for a uniformly random rotation (DRIVE, theorem 3), which a randomised Hadamard
transform, done twice, is near to. Errors of different clients are independent, so that they average out.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fedapp.updates.packing import pack_bits, unpack_bits
from fedapp.updates.per_reply import Bytes, PerReply, scaled, scales_and_seed, with_scales
from fedapp.updates.rotation import BlockRotation
from fedapp.updates.step import StepState, UpdateStep

__all__ = ["Drive"]

SMALLEST = 1e-30  # of a norm that is divided by


@dataclass(frozen=True)
class Drive(PerReply):
    """`compression=drive` has no keys."""

    @property
    def name(self) -> str:
        return "drive"

    def seeded(self, seed: int) -> UpdateStep:
        return replace(self, seed=seed)

    def encode(self, update: Tensor, state: StepState) -> Bytes:
        blocks = BlockRotation(len(update), self.seed).forward(update)
        sizes = [block.abs().sum(1) for block in blocks]
        found = [block.square().sum(1) / size.clamp_min(SMALLEST) for block, size in zip(blocks, sizes, strict=True)]
        signs = torch.cat([block.reshape(-1) for block in blocks] or [update]) >= 0
        return with_scales(torch.cat(found or [update]), self.seed, pack_bits(signs.to(torch.uint8).numpy(), 1))

    def decode(self, packed: Bytes, length: int) -> Tensor:
        shape = BlockRotation(length, 0)
        scales, seed, rest = scales_and_seed(packed, shape.blocks)
        signs = torch.from_numpy(unpack_bits(rest, 1, shape.padded, "u1").astype(np.float32)).mul_(2).sub_(1)
        return BlockRotation(length, seed).backward(scaled(signs, scales, shape.shapes))
