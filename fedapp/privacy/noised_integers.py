"""Updates as whole numbers that are noised before they are masked: what a protocol of secure sums is handed instead of
its own rounding, where the noise is the clients' own."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["NoisedIntegers"]


class NoisedIntegers(Protocol):
    """`least`: over how many clients a sum must be at least, for the noise in it to be enough; a client reveals nothing
    of a smaller one. `expected`: how many are expected. `honest_share`: of a cohort, those whose noise counts; the
    others may work for the server."""

    @property
    def least(self) -> int: ...

    @property
    def expected(self) -> int: ...

    @property
    def honest_share(self) -> float: ...

    @property
    def length(self) -> int:
        """Of what `encode` gives."""

    def encode(self, values: NDArray[np.float64], server_round: int) -> NDArray[np.int64]:
        """A client's clipped and noised update (`length`,), from its values (n,)."""

    def decode(self, total: NDArray[np.int64], server_round: int) -> NDArray[np.float64]:
        """The sum of the clients' updates (n,), from that of their encoded ones."""

    def wrapped(self, total: NDArray[np.int64]) -> int:
        """About how many entries of a sum have gone over the modulus."""
