"""What codecs have in common whose output cannot be summed: each reply is turned back by itself, before screening.

What travels is one vector of bytes: the scalars of other steps as float32, which no codec may touch, and what the
codec makes of the update.
"""

import struct
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedapp.updates.step import LENGTH, StepState, UpdateRejected, UpdateStep
from fedapp.wire.instruction import Params

__all__ = ["LARGEST_SCALE", "Bytes", "PerReply", "scaled", "scales_and_seed", "with_scales"]

Bytes = NDArray[np.uint8]
LARGEST_SCALE = 2.0**20  # as large as any value of an update may be
SEED = struct.Struct("<Q")


@dataclass(frozen=True, kw_only=True)
class PerReply(UpdateStep):
    """`tail`: how many scalars other steps add. `seed`: of one client in one round."""

    tail: int = 0
    seed: int = 0
    summable: ClassVar[bool] = False

    @abstractmethod
    def encode(self, update: Tensor, state: StepState) -> Bytes:
        """Of a client's update, float32 (n,)."""

    @abstractmethod
    def decode(self, packed: Bytes, length: int) -> Tensor:
        """The reverse, float32 (length,). Raises ValueError, with the reason, for anything else than `encode` gives."""

    def planned(self, params: Params) -> "PerReply":
        """The codec as the round's plan has it. Raises ValueError for what no server of this run plans."""
        return self

    def on_client(self, vector: Tensor, weight: float, params: Params, state: StepState) -> Tensor:
        length = len(vector) - self.tail
        try:
            codec = self.planned(params)
        except ValueError as error:
            raise UpdateRejected(f"bad plan of {self.name}: {error}") from None
        packed = codec.encode(vector[:length].float(), state)
        tail = vector[length:].float().numpy().astype("<f4").view(np.uint8)
        return torch.from_numpy(np.concatenate([tail, packed]))

    def on_reply(self, vector: Tensor, weight: float, params: Params) -> Tensor:
        if vector.dtype != torch.uint8 or vector.dim() != 1 or len(vector) < 4 * self.tail:
            raise UpdateRejected(f"bad {self.name}: {vector.dtype} {tuple(vector.shape)}, which is no vector of bytes")
        packed = vector.numpy()
        tail = np.frombuffer(packed[: 4 * self.tail].tobytes(), "<f4").astype(np.float32)
        try:
            update = self.planned(params).decode(packed[4 * self.tail :], int(params[LENGTH]) - self.tail)
        except ValueError as error:
            raise UpdateRejected(f"bad {self.name}: {error}") from None
        return torch.cat([update, torch.from_numpy(tail)]) if self.tail else update


def with_scales(scales: Tensor, seed: int, packed: Bytes) -> Bytes:
    """`packed` behind the scales of all blocks (b,) and the seed of their rotation."""
    head = (np.frombuffer(SEED.pack(seed), np.uint8), scales.numpy().astype("<f4").view(np.uint8))
    return np.concatenate([*head, packed])


def scales_and_seed(packed: Bytes, blocks: int) -> tuple[Tensor, int, Bytes]:
    """The reverse. Raises ValueError for a scale that no update has."""
    start = SEED.size + 4 * blocks
    if len(packed) < start:
        raise ValueError(f"{len(packed)} bytes, which hold no {blocks} scales")
    (seed,) = SEED.unpack(packed[: SEED.size].tobytes())
    scales = np.frombuffer(packed[SEED.size : start].tobytes(), "<f4").astype(np.float32)
    for scale in scales[~((scales >= 0) & (scales <= LARGEST_SCALE))][:1]:
        raise ValueError(f"a scale of {scale:g}, which no update has")
    return torch.from_numpy(scales), seed, packed[start:]


def scaled(values: Tensor, scales: Tensor, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Values of all blocks (n,) as blocks of each size (count, size), times their scales."""
    parts = torch.split(values, [count * size for count, size in shapes])
    factors = torch.split(scales, [count for count, _ in shapes])
    rows = zip(parts, factors, shapes, strict=True)
    return [part.view(shape) * factor[:, None] for part, factor, shape in rows]
