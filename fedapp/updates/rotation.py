"""Spread a vector's energy evenly over its entries: random signs, then a Hadamard transform of each block.

Sums of rotated vectors are rotated sums, and norms stay. A block takes every b-th entry of the vector, b being the
number of blocks, so that each has entries of all layers; and the transform of all blocks is two products of matrices.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

__all__ = ["PaddedRotation", "Rotation", "block_size", "padded", "rotation"]

LARGEST_BLOCK = 4096


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
        full = torch.zeros(len(self._signs), dtype=torch.float64)
        full[: self._length] = values
        return _transformed(full * self._signs, self._block)

    def backward(self, values: Tensor) -> Tensor:
        """(padded,) to (length,)."""
        return (_transformed(values, self._block) * self._signs)[: self._length]


class Rotation:
    """The same of float32, without any padding: where blocks do not fill the vector, the first ones are rotated, and
    then the last ones. They overlap, so that every entry has been mixed with others. Orthonormal, too."""

    def __init__(self, length: int, seed: int) -> None:
        self._block = min(LARGEST_BLOCK, 1 << max(0, length.bit_length() - 1))
        whole = length // self._block * self._block
        starts = (0,) if whole == length else (0, length - whole)
        self._passes = [(start, start + whole, _signs(whole, seed + place)) for place, start in enumerate(starts)]

    def forward(self, values: Tensor) -> Tensor:
        """(length,) to (length,)."""
        found = values.clone()
        for start, end, signs in self._passes:
            found[start:end] = _transformed(found[start:end] * signs, self._block)
        return found

    def backward(self, values: Tensor) -> Tensor:
        """The reverse."""
        found = values.clone()
        for start, end, signs in reversed(self._passes):
            found[start:end] = _transformed(found[start:end], self._block) * signs
        return found


@lru_cache(maxsize=2)
def rotation(length: int, seed: int) -> Rotation:
    """One that all clients of a round have in common, made once."""
    return Rotation(length, seed)


def _signs(length: int, seed: int) -> Tensor:
    drawn = np.random.Generator(np.random.SFC64(seed)).bytes(-(-length // 8))
    bits = np.unpackbits(np.frombuffer(drawn, np.uint8), count=length)
    return torch.from_numpy(bits.astype(np.float32)).mul_(2).sub_(1)


def _transformed(values: Tensor, block: int) -> Tensor:
    """Of each block; the transform is its own inverse. A Hadamard matrix of size a * b is the Kronecker product of
    those of a and b."""
    left = 1 << (block.bit_length() - 1) // 2
    right = block // left
    rows = torch.matmul(_hadamard(left, values.dtype), values.reshape(left, -1)).view(left, right, -1)
    return torch.matmul(_hadamard(right, values.dtype), rows).reshape(-1)


@lru_cache(maxsize=16)
def _hadamard(size: int, dtype: torch.dtype) -> Tensor:
    """The orthonormal, symmetric Hadamard matrix (size, size)."""
    matrix, pair = torch.ones(1, 1, dtype=dtype), torch.tensor([[1, 1], [1, -1]], dtype=dtype)
    while len(matrix) < size:
        matrix = torch.kron(pair, matrix)
    return matrix / size**0.5
