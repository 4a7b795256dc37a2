"""BFV as an additively homomorphic scheme: vectors of residues modulo a prime t, thousands in a ciphertext."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from fedapp.aggregation.bfv.parameters import Parameters
from fedapp.aggregation.bfv.process import BfvProcess
from fedapp.aggregation.bfv.seal_worker import open_context
from fedapp.aggregation.encrypted.additive_scheme import AdditiveScheme, Lanes, Residues
from fedapp.aggregation.helper.carrier import Bytes
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError

__all__ = ["Bfv", "joined", "split", "uniform"]


@dataclass(frozen=True)
class Bfv(AdditiveScheme):
    parameters: Parameters

    def new_keys(self) -> tuple[bytes, bytes]:
        """TenSEAL's contexts; the public one without relinearisation and rotation keys, which sums do not need."""
        import tenseal

        own = self.parameters
        context = tenseal.context(
            tenseal.SCHEME_TYPE.BFV,
            poly_modulus_degree=own.degree,
            plain_modulus=own.modulus,
            coeff_mod_bit_sizes=list(own.primes),
        )
        without = {"save_galois_keys": False, "save_relin_keys": False}
        return context.serialize(save_secret_key=True, **without), context.serialize(save_secret_key=False, **without)

    @property
    def most_public_bytes(self) -> int:
        return self.parameters.most_public_bytes

    def check(self, public: bytes) -> None:
        self._opened(public)

    def modulus(self, public: bytes) -> int:
        return self.parameters.modulus

    def lanes(self, largest: int) -> Lanes:
        return self.parameters.lanes(largest)

    def slots(self, residues: int) -> int:
        return self._count(residues) * self.parameters.degree

    def _count(self, residues: int) -> int:
        """Of ciphertexts."""
        return -(-residues // self.parameters.degree)

    def pack(self, values: NDArray[Any], lanes: Lanes) -> Residues:
        powers = np.array([lanes.base**number for number in range(lanes.count)], np.int64)
        return values.reshape(-1, lanes.count) @ powers

    def unpack(self, residues: Residues, lanes: Lanes, modulus: int) -> NDArray[Any]:
        half = self.parameters.modulus // 2
        left = np.where(residues > half, residues - self.parameters.modulus, residues)
        found = np.empty((len(left), lanes.count), np.int64)
        for number in range(lanes.count - 1):
            digit = (left + lanes.base // 2) % lanes.base - lanes.base // 2
            found[:, number] = digit
            left = (left - digit) // lanes.base
        found[:, lanes.count - 1] = left  # all that is left: what is too large for a digit must be seen
        return found.reshape(-1)

    def masks(self, keys: Sequence[bytes], slots: int, modulus: int) -> Residues:
        total = np.zeros(slots, np.int64)
        for key in keys:
            total = (total + uniform(key, slots, modulus)) % modulus
        return total

    def encrypt(self, public: bytes, residues: Residues) -> Bytes:
        import tenseal

        own, half = self.parameters, self.parameters.modulus // 2
        context = self._opened(public)
        around_zero = np.where(residues > half, residues - own.modulus, residues)
        rows = around_zero.reshape(-1, own.degree)
        return joined([tenseal.bfv_vector(context, row.tolist()).serialize() for row in rows])

    def _opened(self, public: bytes) -> Any:
        own = self.parameters
        self._check_size(public)
        try:
            return open_context(public, own.degree, own.modulus, own.primes)
        except ValueError as error:
            raise ProtocolError("forged", f"the helper's key: {error}") from None

    def _check_size(self, public: bytes) -> None:
        """Before SEAL reads it."""
        if len(public) > self.most_public_bytes:
            raise ProtocolError(
                "forged", f"the helper's key: a context of {len(public)} bytes, {self.most_public_bytes} at most"
            )

    def adder(self, public: bytes, slots: int) -> "BfvAdder":
        self._check_size(public)
        return BfvAdder(self.parameters, public, self._count(slots))

    def decrypt(self, secret: bytes, public: bytes, carried: Bytes, slots: int) -> Residues:
        process = BfvProcess(self.parameters, secret, self._count(slots))
        try:
            rows = process.ask(b"decrypt", split(carried, self._count(slots)))
        finally:
            process.close()
        return np.concatenate([np.frombuffer(row, np.int64) for row in rows]) % self.parameters.modulus

    def noise_budget(self, secret: bytes, carried: Bytes, slots: int) -> int:
        """Bits that are left, of the ciphertext that has fewest; 0 where it is decrypted wrong."""
        process = BfvProcess(self.parameters, secret, self._count(slots))
        try:
            return min(
                int(struct.unpack(">i", b)[0]) for b in process.ask(b"budget", split(carried, self._count(slots)))
            )
        finally:
            process.close()


class BfvAdder:
    def __init__(self, parameters: Parameters, public: bytes, count: int) -> None:
        self._count = count
        self._process = BfvProcess(parameters, public, count)

    def add(self, carried: Bytes) -> None:
        self._process.ask(b"add", split(carried, self._count))

    def total(self) -> Bytes:
        return joined(self._process.ask(b"total"))

    def close(self) -> None:
        self._process.close()


def joined(ciphertexts: Sequence[bytes]) -> Bytes:
    sizes = struct.pack(f">{len(ciphertexts) + 1}I", len(ciphertexts), *map(len, ciphertexts))
    return np.frombuffer(bytearray(b"".join([sizes, *ciphertexts])), np.uint8)


def split(carried: Bytes, count: int) -> list[memoryview]:
    """The ciphertexts. Raises ProtocolError for others than `count`, or than its bytes hold."""
    content = memoryview(np.ascontiguousarray(carried).data).cast("B")
    head = 4 * (count + 1)
    if len(content) < head or struct.unpack(">I", content[:4])[0] != count:
        raise ProtocolError("truncated", f"a vector that is no {count} ciphertexts")
    sizes = struct.unpack(f">{count}I", content[4:head])
    if head + sum(sizes) != len(content):
        raise ProtocolError("truncated", f"ciphertexts of {sum(sizes)} bytes in a vector of {len(content) - head}")
    found, start = [], head
    for size in sizes:
        found.append(content[start : start + size])
        start += size
    return found


def uniform(key: bytes, count: int, modulus: int) -> NDArray[np.int64]:
    """The stream of a key, AES-128 in counter mode, as values that are uniform modulo `modulus`: of as many bits as it
    has, those that are not below it are left out. A key must never serve for two streams."""
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    width, rest = (4, "<u4") if modulus <= 2**32 else (8, "<u8")
    mask = (1 << modulus.bit_length()) - 1
    found: list[NDArray[np.int64]] = []
    have = 0
    while have < count:
        more = count - have + 64
        values = np.frombuffer(stream.update(bytes(more * width)), rest).astype(np.uint64) & np.uint64(mask)
        kept = values[values < np.uint64(modulus)].astype(np.int64)
        found.append(kept)
        have += len(kept)
    return np.concatenate(found)[:count] if found else np.zeros(0, np.int64)
