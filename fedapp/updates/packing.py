"""Whole numbers of any number of bits as bytes: NumPy's `packbits`, one plane of bits after another."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["pack_bits", "packed_bytes", "unpack_bits"]


def packed_bytes(length: int, bits: int) -> int:
    """How many bytes `length` values of so many bits take."""
    return bits // 8 * length + bits % 8 * (-(-length // 8))


def pack_bits(values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """The lowest `bits` bits of unsigned integers (n,). Bits that make whole bytes go as bytes, the rest by planes."""
    whole = bits // 8
    ordered = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    by_byte = ordered.view(np.uint8).reshape(len(values), values.itemsize)
    planes = [by_byte[:, place] for place in range(whole)]
    if bits % 8:
        planes += [np.packbits(by_byte[:, whole] & (1 << place)) for place in range(bits % 8)]
    return np.concatenate(planes) if planes else np.zeros(0, np.uint8)


def unpack_bits(packed: NDArray[Any], bits: int, length: int, dtype: str) -> NDArray[Any]:
    """The reverse. Raises ValueError for another type or length."""
    if packed.dtype != np.uint8 or packed.shape != (packed_bytes(length, bits),):
        raise ValueError(
            f"{packed.dtype} {packed.shape} for {length} values of {bits} bits, which take {packed_bytes(length, bits)}"
            " bytes"
        )
    values = np.zeros(length, dtype)
    whole = bits // 8
    for place in range(whole):
        values |= packed[place * length : (place + 1) * length].astype(dtype) << values.dtype.type(8 * place)
    if bits % 8:
        planes = packed[whole * length :].reshape(bits % 8, -1)
        rest = np.zeros(length, np.uint8)
        for place, plane in enumerate(planes):
            rest |= np.unpackbits(plane, count=length) << np.uint8(place)
        values |= rest.astype(dtype) << values.dtype.type(8 * whole)
    return values
