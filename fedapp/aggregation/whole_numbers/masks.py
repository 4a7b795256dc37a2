"""Masks: streams of AES-128 in counter mode, as integers modulo 2^modulus_bits.

Flower's `pseudo_rand_gen` is numpy's Mersenne Twister under a seed that is folded to 32 bits: whoever has some output,
or tries 2^32 seeds, has the mask. It also never gives the largest value. So masks come from `cryptography`.
"""

from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

__all__ = ["add_mask"]

BLOCK = 1 << 16  # values made at a time, which stay in the cache


def add_mask(vector: NDArray[Any], key: bytes, *, negative: bool = False) -> None:
    """Add, or subtract, the stream of `key` in place. A key must never serve for two streams."""
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    size = min(BLOCK, len(vector)) * vector.itemsize
    zeros, block = bytes(size), bytearray(size)
    values = np.frombuffer(block, vector.dtype)
    change = np.subtract if negative else np.add
    for start in range(0, len(vector), BLOCK):
        part = vector[start : start + BLOCK]
        stream.update_into(memoryview(zeros)[: part.nbytes], memoryview(block)[: part.nbytes])
        change(part, values[: len(part)], out=part)
