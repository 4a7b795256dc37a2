"""Paillier as an additively homomorphic scheme: a hundred values in a ciphertext of 768 bytes, for small models.

Keys have 3072 bits, which is 128-bit security by NIST SP 800-57. A residue is a whole number modulo the public key's n,
in which each value has a lane of whole bytes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from fedapp.aggregation.encrypted.additive_scheme import AdditiveScheme, Lanes, Residues
from fedapp.aggregation.helper.carrier import Bytes
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError

if TYPE_CHECKING:
    from phe.paillier import PaillierPrivateKey, PaillierPublicKey

__all__ = ["KEY_BITS", "Paillier"]

KEY_BITS = 3072
SPARE = 16  # bytes more than a residue has, so that the stream modulo n is uniform but for 2^-128


@dataclass(frozen=True)
class Paillier(AdditiveScheme):
    """`key_bits`: others than 3072 are for tests."""

    key_bits: int = KEY_BITS

    def new_keys(self) -> tuple[bytes, bytes]:
        from phe import paillier

        public, private = paillier.generate_paillier_keypair(n_length=self.key_bits)
        return json.dumps([private.p, private.q]).encode(), self._bytes(public.n, 1)

    @property
    def most_public_bytes(self) -> int:
        return self.key_bits // 8

    def check(self, public: bytes) -> None:
        self.modulus(public)

    def modulus(self, public: bytes) -> int:
        found = int.from_bytes(public, "big")
        if len(public) != self.key_bits // 8 or found.bit_length() != self.key_bits or not found % 2:
            raise ProtocolError("forged", f"the helper's key is no Paillier key of {self.key_bits} bits")
        return found

    def lanes(self, largest: int) -> Lanes:
        """Lanes of whole bytes; a bit less than the key has, since a residue around zero has a sign."""
        width = -(-(2 * largest + 1).bit_length() // 8)
        return Lanes(1 << (8 * width), (self.key_bits - 2) // (8 * width))

    def slots(self, residues: int) -> int:
        return residues

    def pack(self, values: NDArray[Any], lanes: Lanes) -> Residues:
        """Each value with half a lane added, as bytes, without those halves."""
        width = (lanes.base.bit_length() - 1) // 8
        shifted = (values.astype(np.int64) + lanes.base // 2).astype("<u8")
        rows = shifted.view(np.uint8).reshape(-1, lanes.count, 8)[:, :, :width]
        halves = _halves(lanes)
        return np.array([int.from_bytes(row.tobytes(), "little") - halves for row in rows], dtype=object)

    def unpack(self, residues: Residues, lanes: Lanes, modulus: int) -> NDArray[Any]:
        """Where a residue is none that values of these lanes give, values that are too large for any sum."""
        width, halves = (lanes.base.bit_length() - 1) // 8, _halves(lanes)
        found = np.full((len(residues), lanes.count), np.iinfo(np.int64).max // 2, np.int64)
        for row, residue in enumerate(residues):
            around = int(residue) - modulus if int(residue) > modulus // 2 else int(residue)
            content = around + halves
            if 0 <= content < 1 << (8 * width * lanes.count):
                lanes_of = np.frombuffer(content.to_bytes(width * lanes.count, "little"), np.uint8)
                whole = np.zeros((lanes.count, 8), np.uint8)
                whole[:, :width] = lanes_of.reshape(lanes.count, width)
                found[row] = whole.view("<u8").reshape(-1).astype(np.int64) - lanes.base // 2
        return found.reshape(-1)

    def masks(self, keys: Sequence[bytes], slots: int, modulus: int) -> Residues:
        size = self.key_bits // 8 + SPARE
        total = [0] * slots
        for key in keys:
            stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(size * slots))
            for number in range(slots):
                total[number] += int.from_bytes(stream[number * size : (number + 1) * size], "big")
        return np.array([value % modulus for value in total], dtype=object)

    def encrypt(self, public: bytes, residues: Residues) -> Bytes:
        key = self._public(public)
        content = b"".join(self._bytes(key.raw_encrypt(int(residue)), 2) for residue in residues)
        return np.frombuffer(bytearray(content), np.uint8)

    def adder(self, public: bytes, slots: int) -> "PaillierAdder":
        return PaillierAdder(self, self.modulus(public), slots)

    def decrypt(self, secret: bytes, public: bytes, carried: Bytes, slots: int) -> Residues:
        key = self._private(secret, public)
        return np.array([key.raw_decrypt(c) for c in self.ciphertexts(carried, key.public_key.n, slots)], dtype=object)

    def ciphertexts(self, carried: Bytes, modulus: int, slots: int) -> list[int]:
        """Raises ProtocolError for what is no ciphertext under this key, or hides nothing."""
        width = self.key_bits // 4
        if len(carried) != width * slots:
            raise ProtocolError("truncated", f"{len(carried)} bytes, {slots} ciphertexts have {width * slots}")
        content, square = carried.tobytes(), modulus * modulus
        found = [int.from_bytes(content[n * width : (n + 1) * width], "big") for n in range(slots)]
        for number, value in enumerate(found):
            if not 1 < value < square or value % modulus in (0, 1):
                # 1 modulo n is an encryption without randomness, which anybody reads.
                raise ProtocolError("forged", f"ciphertext {number} is none under this key, or can be read without it")
        return found

    def _bytes(self, value: int, times: int) -> bytes:
        return value.to_bytes(times * self.key_bits // 8, "big")

    def _public(self, public: bytes) -> "PaillierPublicKey":
        from phe import paillier

        return paillier.PaillierPublicKey(self.modulus(public))

    def _private(self, secret: bytes, public: bytes) -> "PaillierPrivateKey":
        from phe import paillier

        return paillier.PaillierPrivateKey(self._public(public), *json.loads(secret))


class PaillierAdder:
    """The product of ciphertexts modulo n^2 is that of the sum."""

    def __init__(self, scheme: Paillier, modulus: int, slots: int) -> None:
        self._scheme, self._modulus, self._slots = scheme, modulus, slots
        self._total = [1] * slots

    def add(self, carried: Bytes) -> None:
        square = self._modulus * self._modulus
        found = self._scheme.ciphertexts(carried, self._modulus, self._slots)
        self._total = [one * other % square for one, other in zip(self._total, found, strict=True)]

    def total(self) -> Bytes:
        width = self._scheme.key_bits // 4
        content = b"".join(value.to_bytes(width, "big") for value in self._total)
        return np.frombuffer(bytearray(content), np.uint8)

    def close(self) -> None:
        """Nothing but memory."""


def _halves(lanes: Lanes) -> int:
    """Half a lane in each of them."""
    width = lanes.base.bit_length() - 1
    return sum((lanes.base // 2) << (width * number) for number in range(lanes.count))
