"""The difference of two models in a few bits a value, which everybody decodes to the same bits.

Values of a tensor are rounded at random, without bias, to whole multiples of a share of the largest value of their
block of 256 (QSGD, Alistarh et al. 2017). There is no rotation: what decodes must be elementwise arithmetic, whose
result is the same on every machine, and products of matrices are not. A difference of 0 stays 0.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedapp.common.state_digest import State
from fedapp.updates.packing import pack_bits, packed_bytes, unpack_bits

__all__ = ["DifferenceCodec", "NoDifferenceError"]

BLOCK = 256
LARGEST, SMALLEST = 2.0**20, 1e-30  # of a difference; of a scale that is divided by


class NoDifferenceError(ValueError):
    """Two models whose difference cannot be encoded."""


@dataclass(frozen=True)
class DifferenceCodec:
    """`bits` of each value: 8 or 4."""

    bits: int

    def encode(self, before: State, after: State, seed: int) -> Tensor:
        """As one vector of bytes, uint8 (m,): the scales of all blocks, and the levels of all values. Raises
        NoDifferenceError for models that differ in more than finite floats."""
        if before.keys() != after.keys():
            raise NoDifferenceError("other tensors")
        random = np.random.Generator(np.random.SFC64(seed))
        scales, levels = list[NDArray[np.float32]](), list[NDArray[np.uint8]]()
        for name, old in before.items():
            new = after[name]
            if new.shape != old.shape or new.dtype != old.dtype:
                raise NoDifferenceError(f"another form of {name}")
            if not old.is_floating_point():
                if not torch.equal(new, old):
                    raise NoDifferenceError(f"{name} has changed, which is no float")
                continue
            values = (new.detach().cpu() - old.detach().cpu()).float().reshape(-1).numpy()
            if not (np.abs(values) <= LARGEST).all():
                raise NoDifferenceError(f"a difference of {name} is not finite, or too large")
            blocks = _blocks(values)
            scale = np.abs(blocks).max(1)
            shares = blocks * (self._top / np.maximum(scale, SMALLEST))[:, None].astype(np.float32)
            whole = np.floor(shares + random.random(shares.shape, dtype=np.float32))
            scales.append(scale)
            levels.append((np.clip(whole, -self._top, self._top) + self._top).reshape(-1)[: len(values)].astype("u1"))
        head = np.concatenate(scales or [np.zeros(0, np.float32)]).astype("<f4").view(np.uint8)
        packed = pack_bits(np.concatenate(levels or [np.zeros(0, np.uint8)]), self.bits)
        return torch.from_numpy(np.concatenate([head, packed]))

    def apply(self, before: State, packed: Tensor) -> dict[str, Tensor]:
        """The model after a difference. Raises ValueError for what is no difference of models of this form."""
        floats = [value for value in before.values() if value.is_floating_point()]
        blocks, size = sum(-(-value.numel() // BLOCK) for value in floats), sum(value.numel() for value in floats)
        needed = 4 * blocks + packed_bytes(size, self.bits)
        if packed.dtype != torch.uint8 or packed.shape != (needed,):
            raise ValueError(f"bad difference: {packed.dtype} {tuple(packed.shape)}, and it takes {needed} bytes")
        content = packed.numpy()
        scales = np.frombuffer(content[: 4 * blocks].tobytes(), "<f4").astype(np.float32)
        for scale in scales[~((scales >= 0) & (scales <= LARGEST))][:1]:
            raise ValueError(f"bad difference: a scale of {scale:g}, which no difference has")
        levels = unpack_bits(content[4 * blocks :], self.bits, size, "u1")
        if size and (highest := int(levels.max())) > 2 * self._top:
            raise ValueError(f"bad difference: a level of {highest}, and the highest is {2 * self._top}")
        return self._added(before, scales / np.float32(self._top), levels.astype(np.float32) - np.float32(self._top))

    @property
    def _top(self) -> int:
        return int(2 ** (self.bits - 1)) - 1

    @staticmethod
    def _added(before: State, steps: NDArray[np.float32], levels: NDArray[np.float32]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        block = start = 0
        for name, old in before.items():
            if not old.is_floating_point():
                found[name] = old
                continue
            count, size = -(-old.numel() // BLOCK), old.numel()
            values = (_blocks(levels[start : start + size]) * steps[block : block + count, None]).reshape(-1)[:size]
            found[name] = old + torch.from_numpy(values).reshape(old.shape).to(old.dtype)
            block, start = block + count, start + size
        return found


def _blocks(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,) as (b, 256), filled up with zeros."""
    count = -(-len(values) // BLOCK)
    full = np.zeros(count * BLOCK, np.float32)
    full[: len(values)] = values
    return full.reshape(count, BLOCK)
