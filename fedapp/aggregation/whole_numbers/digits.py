"""Whole numbers beside levels of a few bits, as several digits of as many bits: they are added like levels.

A number is taken modulo 2^(digits * bits), so that a sum of digits gives the sum of the numbers whatever their signs.
"""

import numpy as np
from numpy.typing import NDArray

from fedapp.aggregation.whole_numbers.fixed_point import FixedPoint

__all__ = ["from_digits", "to_digits"]

Ints = NDArray[np.int64]


def to_digits(values: Ints, numbers: FixedPoint) -> Ints:
    """(n,) to (n * digits,), each a level: from -2^(bits - 1) to 2^(bits - 1) - 1. The lowest digit comes first."""
    shifts = numbers.bits * np.arange(numbers.digits)
    digits: Ints = (values[:, None] >> shifts) & (2**numbers.bits - 1)
    levels: Ints = (digits - 2 ** (numbers.bits - 1)).reshape(-1)
    return levels


def from_digits(total: Ints, clients: int, numbers: FixedPoint) -> Ints:
    """The sum of the numbers of so many clients (n,), from that of their digits (n * digits,)."""
    digits = total.reshape(-1, numbers.digits) + clients * 2 ** (numbers.bits - 1)
    found: Ints = np.zeros(len(digits), np.int64)
    for place in range(numbers.digits):
        found += digits[:, place] << (numbers.bits * place)
    width = 64 - numbers.bits * numbers.digits
    signed: Ints = (found << width) >> width
    return signed
