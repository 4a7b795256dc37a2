"""The randomness of differential privacy: from the operating system, never from the public seed of a run."""

import os

import numpy as np
import torch
from randomgen import AESCounter
from torch import Tensor

from fedapp.common.seeding import derive_seed

__all__ = ["Noise", "make_noise"]


class Noise:
    """Gaussian noise and Poisson samples from a stream of random bits, here AES-128 in counter mode.

    An adversary who knows the seed of a generator like torch's, or guesses its 32 bits, can subtract the noise. A
    128-bit key from the operating system cannot be guessed.
    """

    def __init__(self, key: int) -> None:
        self._random = np.random.Generator(AESCounter(key=key))
        self.torch_seed = derive_seed(key, "torch")  # for dropout, which draws from torch's generators; as secret

    def normal(self, shape: torch.Size, std: float) -> Tensor:
        """Independent Gaussian values of mean 0 in float64. The last bits of float32 noise leak what it hides (Mironov
        2012)."""
        return torch.from_numpy(self._random.standard_normal(tuple(shape))).mul_(std)

    def poisson_sample(self, count: int, rate: float) -> Tensor:
        """Indices (B,) out of 0..count-1, each with probability `rate`, independently; B may be 0."""
        return torch.from_numpy(np.flatnonzero(self._random.random(count) < rate))


def make_noise(source: str, seed: int = 0) -> Noise:
    """Noise from the operating system's entropy; from `seed` for the source "seeded_for_tests", which voids epsilon."""
    if source == "seeded_for_tests":
        return Noise(seed)
    return Noise(int.from_bytes(os.urandom(16), "big"))
