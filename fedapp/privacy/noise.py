"""The randomness of differential privacy: from the operating system, never from the public seed of a run."""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from randomgen import AESCounter
from torch import Tensor

__all__ = ["Noise", "make_noise"]

MERSENNE_WORDS = 624  # of 32 bits each, in words of 64
GRID = 12  # bits of a standard deviation: a grid's spacing is 2^-12 to 2^-13 of it


class Noise:
    """Gaussian noise and Poisson samples from a stream of random bits, here AES-128 in counter mode.

    An adversary who knows the seed of a generator like torch's, or guesses its 32 bits, can subtract the noise. A
    128-bit key from the operating system cannot be guessed.
    """

    def __init__(self, key: int) -> None:
        self._random = np.random.Generator(AESCounter(key=key))

    def normal(self, shape: torch.Size, std: float) -> Tensor:
        """Independent Gaussian values of mean 0 in float64. The last bits of float32 noise leak what it hides (Mironov
        2012)."""
        return torch.from_numpy(self._random.standard_normal(tuple(shape))).mul_(std)

    def added(self, values: Tensor, std: float) -> Tensor:
        """`values`, float64, with independent Gaussian noise, on a grid: the sum rounded to a multiple of a power of
        two that follows from `std` alone.

        Floating-point noise leaves gaps in its last bits, which tell what it was added to (Mironov 2012). Rounding to a
        grid is post-processing of the real sum, so it costs no privacy; and a step of the grid holds some 2^38 of the
        values that the noise can take near its middle, so that all steps are reached from all `values`.
        """
        if not std > 0:
            return values
        spacing = 2.0 ** (math.floor(math.log2(std)) - GRID)
        return self.normal(values.shape, std / spacing).add_(values, alpha=1 / spacing).round_().mul_(spacing)

    def poisson_sample(self, count: int, rate: float) -> Tensor:
        """Indices (B,) out of 0..count-1, each with probability `rate`, independently; B may be 0."""
        return torch.from_numpy(np.flatnonzero(self._random.random(count) < rate))

    def skellam(self, count: int, variance: float) -> NDArray[np.int64]:
        """`count` independent Skellam values of mean 0: whole numbers, sums of which are Skellam again."""
        half = variance / 2
        found: NDArray[np.int64] = self._random.poisson(half, count)
        found -= self._random.poisson(half, count)
        return found

    @property
    def generator(self) -> np.random.Generator:
        """The stream itself."""
        return self._random

    @contextmanager
    def in_torch(self, device: torch.device) -> Iterator[Callable[[], None]]:
        """For dropout and its like, which draw from torch's global generators: a function that fills them anew from
        this stream. Afterwards they are as they were.

        A seed will not do, since torch's generator for the CPU keeps 32 bits of it: all its 19,968 bits of state are
        replaced. A GPU's generator takes 64 bits.
        """
        devices = (device.index or 0,) if device.type == "cuda" else ()
        with torch.random.fork_rng(devices=devices) if devices else _kept_state():
            yield lambda: self._fill_torch(devices)

    def _fill_torch(self, devices: tuple[int, ...]) -> None:
        state = torch.Generator().manual_seed(0).get_state()
        words = state.numpy()[: 8 * (3 + MERSENNE_WORDS)].view(np.uint64)[3:]  # behind 24 bytes of seed and position
        words[:] = self._random.integers(0, 2**32, MERSENNE_WORDS, dtype=np.uint64)
        torch.set_rng_state(state)
        if torch.backends.mps.is_available():
            torch.mps.manual_seed(int(self._random.integers(0, 2**63)))
        for index in devices:
            torch.cuda.default_generators[index].manual_seed(int(self._random.integers(0, 2**63)))


@contextmanager
def _kept_state() -> Iterator[None]:
    before = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(before)


def make_noise(source: str, seed: int = 0) -> Noise:
    """Noise from the operating system's entropy; from `seed` for the source "seeded_for_tests", which voids epsilon."""
    if source == "seeded_for_tests":
        return Noise(seed)
    return Noise(int.from_bytes(os.urandom(16), "big"))
