"""A client's update as whole numbers with its share of the Skellam noise, ready to be masked (Agarwal et al. 2021).

Rotated, clipped, scaled, rounded, noised. Only what the noise covers depends on the data: a client's whole numbers have
an L2 norm of at most `l2`, whatever its update, and each client adds noise of variance `share`. Sums are taken modulo
2^modulus_bits. Where a sum goes over that, the result is wrong and no less private, so the scale is chosen such that it
is rare.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedapp.common.seeding import derive_seed
from fedapp.privacy.client_level.norm import norm_of
from fedapp.privacy.client_level.rounding import l1_bound, l2_bound, rounded
from fedapp.privacy.noise import Noise
from fedapp.updates.rotation import PaddedRotation, block_size, padded

__all__ = ["SkellamNoise", "Sums", "scale_of"]

DEVIATIONS = 5  # of an entry of the sum, that the modulus holds on either side
EDGE = 0.9  # of the modulus's half: what lies beyond is as likely to have come over the edge as to stay before it
SLACK = 1e-9
LARGEST_NORM = 1e100  # of an update as it is; the squares of much longer ones are not finite
# NumPy draws Poisson variables of mean m by comparing logarithms near m log m: off by some 2e-16 of that, which is 1e-7
# for this mean, and spoils the variance from 1e15 on. Rounding to whole numbers is far below such noise already.
LARGEST_SHARE = 2.0**27


@dataclass(frozen=True)
class Sums:
    """What the noise is for: sums over `expected` clients, of vectors of `length` trained values, each clipped to
    `norm`, modulo 2^`modulus_bits`. Of the `least` clients in a sum `honest_share` add their noise."""

    length: int
    norm: float
    modulus_bits: int
    expected: int
    least: int
    honest_share: float

    @property
    def noise_sources(self) -> float:
        """How many clients' noise is in a sum, at the least."""
        return self.honest_share * self.least

    def sensitivity(self, scale: float) -> tuple[float, float]:
        """The L1 and L2 norm of a client's whole numbers, at most, with `scale` of them for 1."""
        longest = padded(self.length)
        l2 = l2_bound(scale * self.norm, longest)
        return l1_bound(l2, longest), l2

    def deviation(self, scale: float, multiplier: float) -> float:
        """The standard deviation of an entry of a sum over `expected` clients that all send the same vector, all of
        which lies in one block: signal, all clients' noise, and rounding."""
        signal = (self.expected * scale * self.norm) ** 2 / block_size(self.length)
        noise = (multiplier * self.sensitivity(scale)[1]) ** 2 * self.expected / self.noise_sources
        return math.sqrt(signal + noise + self.expected / 4)


@lru_cache(maxsize=64)
def scale_of(sums: Sums, multiplier: float) -> float:
    """The largest scale with which `DEVIATIONS` of an entry fit into the modulus, and which needs no larger noise of a
    client than can be drawn well; 0 where there is none."""
    half = 2.0 ** (sums.modulus_bits - 1)

    def fits(scale: float) -> bool:
        share = (multiplier * sums.sensitivity(scale)[1]) ** 2 / sums.noise_sources
        return DEVIATIONS * sums.deviation(scale, multiplier) <= half and share <= LARGEST_SHARE

    low, high = 0.0, half / sums.norm
    if not fits(1e-9 * high):
        return 0.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


@dataclass(frozen=True)
class SkellamNoise:
    """`multiplier`: the standard deviation of the noise in a sum over `sums.least` clients, in units of `l2`. `trained`
    (n,) bool: which values of an update are trained; the others are zero. `seed`: the run's, for the rotation. `noise`
    makes a new stream of noise for each update."""

    sums: Sums
    multiplier: float
    trained: Tensor
    seed: int
    noise: Callable[[], Noise]

    @property
    def least(self) -> int:
        return self.sums.least

    @property
    def expected(self) -> int:
        return self.sums.expected

    @property
    def honest_share(self) -> float:
        return self.sums.honest_share

    @cached_property
    def scale(self) -> float:
        return scale_of(self.sums, self.multiplier)

    @property
    def l1(self) -> float:
        return self.sums.sensitivity(self.scale)[0]

    @property
    def l2(self) -> float:
        return self.sums.sensitivity(self.scale)[1]

    @property
    def variance(self) -> float:
        """Of the noise in a sum over `least` clients, in squared units of whole numbers."""
        return (self.multiplier * self.l2) ** 2

    @property
    def share(self) -> float:
        """The variance of a client's own noise."""
        return self.variance / self.sums.noise_sources

    @property
    def length(self) -> int:
        return padded(self.sums.length)

    def encode(self, values: NDArray[np.float64], server_round: int) -> NDArray[np.int64]:
        random = self.noise()
        found = self.whole(values, server_round, random)
        found += random.skellam(len(found), self.share)
        return found

    def whole(self, values: NDArray[np.float64], server_round: int, random: Noise) -> NDArray[np.int64]:
        """The same without noise: an L2 norm of `l2` at most, whatever `values` are."""
        trained = torch.from_numpy(values if self._all_trained else values[self._trained])
        if norm_of(trained) > LARGEST_NORM:  # or not finite
            largest = trained.abs().max()  # NaN where there is one
            trained = trained * (LARGEST_NORM / largest) if largest.isfinite() else torch.zeros_like(trained)
        rotated = self._rotation(server_round).forward(trained).mul_(self.scale)
        # By torch: NumPy's BLAS wakes threads for a norm, which then wait for more at full speed.
        bound, norm = self.scale * self.sums.norm * (1 - SLACK), norm_of(rotated)
        if norm > bound:
            rotated.mul_(bound / norm)
        return rounded(rotated.numpy(), self.scale * self.sums.norm, random.generator)

    def decode(self, total: NDArray[np.int64], server_round: int) -> NDArray[np.float64]:
        found = np.zeros(len(self._trained))
        found[self._trained] = self._rotation(server_round).backward(torch.from_numpy(total / self.scale)).numpy()
        return found

    def wrapped(self, total: NDArray[np.int64]) -> int:
        return int((np.abs(total) > EDGE * 2.0 ** (self.sums.modulus_bits - 1)).sum())

    @cached_property
    def _trained(self) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = self.trained.numpy()
        return found

    @cached_property
    def _all_trained(self) -> bool:
        return bool(self.trained.all())

    def _rotation(self, server_round: int) -> PaddedRotation:
        return _rotation(self.sums.length, derive_seed(self.seed, "rotation", server_round))


@lru_cache(maxsize=2)
def _rotation(length: int, seed: int) -> PaddedRotation:
    return PaddedRotation(length, seed)
