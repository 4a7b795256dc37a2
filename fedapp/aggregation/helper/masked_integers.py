"""Whole numbers modulo 2^k under masks that are uniform modulo 2^k: as many bytes as the numbers have without them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedapp.aggregation.helper.carrier import Bytes, Carrier, Hidden, Ints
from fedapp.aggregation.whole_numbers.fixed_point import FixedPoint
from fedapp.aggregation.whole_numbers.masks import add_mask
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.aggregation.whole_numbers.quantise import pack, signed, unpack

__all__ = ["MaskedIntegers"]


@dataclass(frozen=True)
class MaskedIntegers(Carrier):
    numbers: FixedPoint

    def at(self, cohort: int) -> "MaskedIntegers":
        return MaskedIntegers(self.numbers.at(cohort))

    @property
    def gives_masks(self) -> bool:
        return True

    def check_cohort(self, cohort: int) -> None:
        self.numbers.check_modulus(cohort)

    def hide(self, vectors: Sequence[Hidden], public: bytes, length: int) -> Bytes:
        total: NDArray[Any] = np.zeros(length, self.numbers.dtype)
        for vector, keys in vectors:
            total += vector.astype(self.numbers.dtype)
            for key in keys:
                add_mask(total, key)
        return pack(total, self.numbers)

    def adder(self, public: bytes, length: int) -> "MaskedAdder":
        return MaskedAdder(self.numbers, length)

    def uncover(
        self, secret: bytes, public: bytes, carried: Bytes, keys: Sequence[bytes], length: int, cohort: int
    ) -> Ints:
        total = unpack(carried, self.numbers, length)
        for key in keys:
            add_mask(total, key, negative=True)
        found, largest = signed(total, self.numbers), self.numbers.largest_sum(cohort)
        if length and max(-int(found.min()), int(found.max())) > largest:
            raise ProtocolError("forged", f"the sum is none of a cohort of {cohort}: a value beyond {largest}")
        return found

    def mask_sum(self, keys: Sequence[bytes], length: int) -> Bytes:
        total: NDArray[Any] = np.zeros(length, self.numbers.dtype)
        for key in keys:
            add_mask(total, key)
        return pack(total, self.numbers)

    def without(self, carried: Bytes, masks: Bytes, length: int) -> Bytes:
        return pack(unpack(carried, self.numbers, length) - unpack(masks, self.numbers, length), self.numbers)

    def read(self, carried: Bytes, length: int) -> Ints:
        return signed(unpack(carried, self.numbers, length), self.numbers)


class MaskedAdder:
    def __init__(self, numbers: FixedPoint, length: int) -> None:
        self._numbers, self._length = numbers, length
        self._total: NDArray[Any] = np.zeros(length, numbers.dtype)

    def add(self, carried: Bytes) -> None:
        self._total += unpack(carried, self._numbers, self._length)

    def total(self) -> Bytes:
        return pack(self._total, self._numbers)

    def close(self) -> None:
        """Nothing but memory."""
