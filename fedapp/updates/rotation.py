"""Spread a vector's energy evenly over its entries: random signs, then a Hadamard transform of each block.

Sums of rotated vectors are rotated sums, and norms stay. The transform of all blocks is two products of matrices, also
where a block takes every b-th entry of the vector, b being the number of blocks: then it has entries of all layers.
"""

import math
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

__all__ = ["BlockRotation", "PaddedRotation", "Rotation", "block_size", "padded", "rotation"]

LARGEST_BLOCK, SMALLEST_BLOCK = 4096, 64


def block_size(length: int) -> int:
    """The least power of two that holds `length` values, 4096 at most."""
    return min(LARGEST_BLOCK, 1 << max(0, length - 1).bit_length())


def padded(length: int) -> int:
    """How long a vector of `length` values is in whole blocks."""
    block = block_size(length)
    return -(-length // block) * block


class PaddedRotation:
    """Of vectors (length,) of float64, by signs from the public `seed`, filled up with zeros to whole blocks.
    Orthonormal."""

    def __init__(self, length: int, seed: int) -> None:
        self._length, self._block = length, block_size(length)
        self._signs = _signs(padded(length), seed).double()

    def forward(self, values: Tensor) -> Tensor:
        """(length,) to (padded,)."""
        full = torch.zeros_like(self._signs)
        torch.mul(values, self._signs[: self._length], out=full[: self._length])
        return _transformed(full, self._block)

    def backward(self, values: Tensor) -> Tensor:
        """(padded,) to (length,)."""
        return (_transformed(values, self._block) * self._signs)[: self._length]


class Rotation:
    """Of float32 vectors (length,), without any padding: blocks end at the last entry, and then begin at the first one.
    The first time a block takes every b-th entry, the second time neighbours, so that every value is spread over all of
    the vector. Orthonormal."""

    def __init__(self, length: int, seed: int) -> None:
        self._block = min(LARGEST_BLOCK, _power_within(max(1, length // 8)))  # so that little is left out of a pass
        self._whole = length // self._block * self._block
        self._signs = [_signs(self._whole, seed + number) for number in range(2)]

    def forward(self, values: Tensor) -> Tensor:
        """(length,) to (length,)."""
        found, (first, second) = values.clone(), self._signs
        tail, head = found[len(found) - self._whole :], found[: self._whole]
        tail.copy_(_transformed(tail * first, self._block))
        head.copy_(_neighbours_transformed(head * second, self._block))
        return found

    def backward(self, values: Tensor) -> Tensor:
        """The reverse."""
        found, (first, second) = values.clone(), self._signs
        tail, head = found[len(found) - self._whole :], found[: self._whole]
        head.copy_(_neighbours_transformed(head, self._block).mul_(second))
        tail.copy_(_transformed(tail, self._block).mul_(first))
        return found


class BlockRotation:
    """Of float32 vectors (length,), each block of neighbours by itself and twice, as what is proved of uniformly random
    rotations needs it. What does not fill a block of 4096 goes into smaller ones, the last of which is filled up."""

    def __init__(self, length: int, seed: int) -> None:
        self._length, rest = length, length % LARGEST_BLOCK
        self.shapes = [(length // LARGEST_BLOCK, LARGEST_BLOCK)] if length >= LARGEST_BLOCK else []
        while rest > 0:
            size = max(SMALLEST_BLOCK, _power_within(rest))
            self.shapes.append((1, size))
            rest -= size
        self.padded, self._seed = sum(count * size for count, size in self.shapes), seed

    @cached_property
    def _signs(self) -> list[Tensor]:
        return [_signs(self.padded, self._seed + number) for number in range(2)]

    @property
    def blocks(self) -> int:
        return sum(count for count, _ in self.shapes)

    def forward(self, values: Tensor) -> list[Tensor]:
        """(length,) to blocks of each size, (count, size)."""
        full, (first, second) = torch.zeros(self.padded), self._signs
        full[: self._length] = values
        return [part.view(shape) for part, shape in zip(self._twice(full * first, second), self.shapes, strict=True)]

    def backward(self, blocks: list[Tensor]) -> Tensor:
        """The reverse."""
        first, second = self._signs
        full = torch.cat([block.reshape(-1) for block in blocks] or [first])
        return (torch.cat(self._twice(full, second) or [first]) * first)[: self._length]

    def _twice(self, full: Tensor, signs: Tensor) -> list[Tensor]:
        """Of each size the blocks' values, transformed, multiplied by signs, and transformed."""
        split = [count * size for count, size in self.shapes]
        parts = zip(torch.split(full, split), torch.split(signs, split), self.shapes, strict=True)
        return [
            _neighbours_transformed(_neighbours_transformed(part, size) * sign, size) for part, sign, (_, size) in parts
        ]


@lru_cache(maxsize=2)
def rotation(length: int, seed: int) -> Rotation:
    """One that all clients of a round have in common, made once."""
    return Rotation(length, seed)


def _signs(length: int, seed: int) -> Tensor:
    drawn = np.random.Generator(np.random.SFC64(seed)).bytes(-(-length // 8))
    bits = np.unpackbits(np.frombuffer(drawn, np.uint8), count=length)
    return torch.from_numpy(bits.astype(np.float32)).mul_(2).sub_(1)


def _power_within(length: int) -> int:
    """The largest power of two that is no larger than `length`."""
    return 1 << (length.bit_length() - 1)


def _sides(block: int) -> tuple[int, int]:
    """A Hadamard matrix of size a * b is the Kronecker product of those of a and b."""
    left = 1 << (block.bit_length() - 1) // 2
    return left, block // left


def _transformed(values: Tensor, block: int) -> Tensor:
    """Of each block, which has every b-th entry; the transform is its own inverse."""
    left, right = _sides(block)
    rows = torch.matmul(_hadamard(left, values.dtype), values.reshape(left, -1)).view(left, right, -1)
    return torch.matmul(_hadamard(right, values.dtype), rows).reshape(-1)


def _neighbours_transformed(values: Tensor, block: int) -> Tensor:
    """The same of blocks of neighbours."""
    left, right = _sides(block)
    rows = torch.matmul(values.reshape(-1, right), _hadamard(right, values.dtype)).view(-1, left, right)
    return torch.matmul(_hadamard(left, values.dtype), rows).reshape(-1)


@lru_cache(maxsize=16)
def _hadamard(size: int, dtype: torch.dtype) -> Tensor:
    """The orthonormal, symmetric Hadamard matrix (size, size)."""
    matrix, pair = torch.ones(1, 1, dtype=dtype), torch.tensor([[1, 1], [1, -1]], dtype=dtype)
    while len(matrix) < size:
        matrix = torch.kron(pair, matrix)
    return matrix / math.sqrt(size)
