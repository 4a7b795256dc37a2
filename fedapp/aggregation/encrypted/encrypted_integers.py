"""Whole numbers under masks, and the masked ones encrypted for the helper.

The masks are uniform modulo the scheme's in every residue, those that no value needs among them. A helper that takes
the masks of some clients off anything but the encrypted sum of just these is left with noise: it is no decryption
oracle.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedapp.aggregation.encrypted.additive_scheme import AdditiveScheme, Lanes
from fedapp.aggregation.helper.carrier import Adder, Bytes, Carrier, Hidden, Ints
from fedapp.aggregation.whole_numbers.fixed_point import GROUP, FixedPoint
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.common.errors import ConfigError

__all__ = ["EncryptedIntegers"]


@dataclass(frozen=True)
class EncryptedIntegers(Carrier):
    """`cohort`: the largest that sums are for."""

    scheme: AdditiveScheme
    numbers: FixedPoint
    cohort: int

    def run_keys(self) -> tuple[bytes, bytes]:
        return self.scheme.new_keys()

    @property
    def most_public_bytes(self) -> int:
        return self.scheme.most_public_bytes

    def check_public(self, public: bytes) -> None:
        self.scheme.check(public)

    def check_cohort(self, cohort: int) -> None:
        if cohort > self.cohort:
            raise ConfigError(
                f"{GROUP}.max_cohort={self.cohort}: a cohort of {cohort} is larger; set it to {cohort} (lanes and noise"
                " are reckoned for it)"
            )

    def hide(self, vectors: Sequence[Hidden], public: bytes, length: int) -> Bytes:
        modulus, slots = self.scheme.modulus(public), self._slots(length)
        padded = np.zeros(slots * self._lanes.count, np.int64)
        for vector, _ in vectors:
            padded[:length] += vector
        masks = self.scheme.masks([key for _, keys in vectors for key in keys], slots, modulus)
        return self.scheme.encrypt(public, (self.scheme.pack(padded, self._lanes) + masks) % modulus)

    def adder(self, public: bytes, length: int) -> Adder:
        return self.scheme.adder(public, self._slots(length))

    def uncover(
        self, secret: bytes, public: bytes, carried: Bytes, keys: Sequence[bytes], length: int, cohort: int
    ) -> Ints:
        modulus, slots = self.scheme.modulus(public), self._slots(length)
        residues = self.scheme.decrypt(secret, public, carried, slots)
        bare = (residues - self.scheme.masks(keys, slots, modulus)) % modulus
        values = self.scheme.unpack(bare, self._lanes, modulus)
        largest = self.numbers.largest_sum(cohort)
        if values[length:].any() or max(-int(values.min()), int(values.max())) > largest:
            raise ProtocolError("forged", f"what was decrypted is no sum of these clients, of a cohort of {cohort}")
        return np.asarray(values[:length], np.int64)

    @property
    def _lanes(self) -> Lanes:
        return self.scheme.lanes(self.numbers.largest_sum(self.cohort))

    def _slots(self, length: int) -> int:
        return self.scheme.slots(-(-length // self._lanes.count))
