"""How masked whole numbers travel to the server, are added there, and are laid bare at the helper."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["CRASHED", "Adder", "Bytes", "Carrier", "Hidden", "Ints"]

CRASHED = "crashed"  # the kind of an error: what adds has gone, with all that was added

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Hidden = tuple[Ints, Sequence[bytes]]  # one client's vector, and the keys of its masks


class Adder(Protocol):
    """Carried vectors, added as they come. Raises ProtocolError for what cannot be added, which changes nothing."""

    def add(self, carried: Bytes) -> None: ...

    def total(self) -> Bytes:
        """What was added, as it would be carried."""

    def close(self) -> None:
        """Free what it holds."""


class Carrier(ABC):
    """`length` is the number of values in a vector, metrics included. Raises ProtocolError for bytes of another's
    making that are not what they must be."""

    def at(self, cohort: int) -> "Carrier":
        """What carries the sums of a cohort of this size."""
        return self

    def run_keys(self) -> tuple[bytes, bytes]:
        """A helper's secret and public key for one run; empty where none are needed."""
        return b"", b""

    @property
    def most_public_bytes(self) -> int:
        """Of a helper's public key for one run."""
        return 0

    def check_public(self, public: bytes) -> None:  # noqa: B027 (most have none)
        """Before a client uses it. It is signed by the helper that it pins."""

    @abstractmethod
    def check_cohort(self, cohort: int) -> None:
        """Raises ConfigError, with the arithmetic, where sums of so many clients do not fit."""

    @abstractmethod
    def hide(self, vectors: Sequence[Hidden], public: bytes, length: int) -> Bytes:
        """The sum of these clients' vectors under all of their masks."""

    @abstractmethod
    def adder(self, public: bytes, length: int) -> Adder:
        """For the server."""

    @abstractmethod
    def uncover(
        self, secret: bytes, public: bytes, carried: Bytes, keys: Sequence[bytes], length: int, cohort: int
    ) -> Ints:
        """For the helper: the sum without the masks of these keys. Raises ProtocolError where it is none that a cohort
        of this size can have."""

    @property
    def gives_masks(self) -> bool:
        """Whether a server lays the sum bare itself, by the sum of the masks."""
        return False

    def mask_sum(self, keys: Sequence[bytes], length: int) -> Bytes:
        """For the helper: the sum of the masks of these keys."""
        raise NotImplementedError

    def without(self, carried: Bytes, masks: Bytes, length: int) -> Bytes:
        """For the server: `carried` without a sum of masks."""
        raise NotImplementedError

    def read(self, carried: Bytes, length: int) -> Ints:
        """For the server: a carried sum without masks."""
        raise NotImplementedError
