"""What an additively homomorphic scheme is to a sum: keys, and residues that are added under encryption."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from fedapp.aggregation.helper.carrier import Adder, Bytes

__all__ = ["AdditiveScheme", "Lanes", "Residues"]

Residues = NDArray[Any]  # whole numbers modulo the scheme's: int64, or Python's integers where those are larger


@dataclass(frozen=True)
class Lanes:
    """How values are packed: `count` of them in a residue, each a digit of base `base` around zero."""

    base: int
    count: int


class AdditiveScheme(ABC):
    """Raises ProtocolError for keys and ciphertexts that are not what they must be; an `Adder` does so before it adds
    anything of a ciphertext."""

    @abstractmethod
    def new_keys(self) -> tuple[bytes, bytes]:
        """A secret and a public key, from the operating system's entropy."""

    @property
    @abstractmethod
    def most_public_bytes(self) -> int:
        """Of a public key."""

    @abstractmethod
    def check(self, public: bytes) -> None:
        """Raises ProtocolError for a public key of another size or other parameters."""

    @abstractmethod
    def modulus(self, public: bytes) -> int:
        """Of the residues."""

    @abstractmethod
    def lanes(self, largest: int) -> Lanes:
        """For values whose sums are `largest` in magnitude at most."""

    @abstractmethod
    def slots(self, residues: int) -> int:
        """How many residues are encrypted where so many are needed: ciphertexts are full."""

    @abstractmethod
    def pack(self, values: NDArray[Any], lanes: Lanes) -> Residues:
        """Values (slots * lanes.count,) as residues around zero (slots,)."""

    @abstractmethod
    def unpack(self, residues: Residues, lanes: Lanes, modulus: int) -> NDArray[Any]:
        """The reverse, for residues modulo the scheme's."""

    @abstractmethod
    def masks(self, keys: Sequence[bytes], slots: int, modulus: int) -> Residues:
        """The sum of the streams of these keys, each uniform modulo the scheme's."""

    @abstractmethod
    def encrypt(self, public: bytes, residues: Residues) -> Bytes: ...

    @abstractmethod
    def adder(self, public: bytes, slots: int) -> Adder: ...

    @abstractmethod
    def decrypt(self, secret: bytes, public: bytes, carried: Bytes, slots: int) -> Residues: ...
