"""Spread a vector's energy evenly over its entries: random signs, then a Hadamard transform of each block.

Sums of rotated vectors are rotated sums, and norms stay. In blocks, so that little is added to fill the last one.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["Rotation", "padded"]

LARGEST_BLOCK = 4096

Floats = NDArray[np.float64]


def block_size(length: int) -> int:
    """The least power of two that holds `length` values, 4096 at most."""
    return min(LARGEST_BLOCK, 1 << max(0, length - 1).bit_length())


def padded(length: int) -> int:
    """How long a rotated vector of `length` values is."""
    block = block_size(length)
    return -(-length // block) * block


class Rotation:
    """Of vectors of `length` values, by signs from the public `seed`. Orthonormal."""

    def __init__(self, length: int, seed: int) -> None:
        self._length, self._block, self._padded = length, block_size(length), padded(length)
        self._signs = np.random.default_rng(seed).integers(0, 2, self._padded).astype(np.float64) * 2 - 1

    def forward(self, values: Floats) -> Floats:
        """(length,) to (padded,)."""
        full = np.zeros(self._padded)
        full[: self._length] = values
        return self._transformed(full * self._signs)

    def backward(self, values: Floats) -> Floats:
        """(padded,) to (length,)."""
        found: Floats = (self._transformed(values) * self._signs)[: self._length]
        return found

    def _transformed(self, values: Floats) -> Floats:
        """Of each block; the transform is its own inverse. As two products of matrices, since a Hadamard matrix of
        size a * b is the Kronecker product of those of a and b."""
        left = 1 << (self._block.bit_length() - 1) // 2
        right = self._block // left
        blocks = values.reshape(-1, left, right)
        found: Floats = np.matmul(np.matmul(_hadamard(left), blocks), _hadamard(right))
        return found.reshape(-1)


@lru_cache(maxsize=16)
def _hadamard(size: int) -> Floats:
    """The orthonormal, symmetric Hadamard matrix (size, size)."""
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return np.asarray(matrix / np.sqrt(size))
