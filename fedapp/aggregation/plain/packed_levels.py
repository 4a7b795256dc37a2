"""Updates that are whole numbers of a few bits (`UpdateStep.level_bits`), as bytes: their sum over a SuperNode's
clients, in as many bits as the largest such sum needs."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedapp.aggregation.exact_sum import FRACTION_BITS
from fedapp.common.state_digest import State
from fedapp.updates.packing import pack_bits, unpack_bits
from fedapp.updates.vectors import flatten, unflatten

__all__ = ["LEVEL", "LevelSum", "levels_in"]

LEVELS = "levels"
SHIFT = 20  # a level is 2^20 units of the fixed point, so that sums up to 2^42 fit
LEVEL = 2.0 ** (SHIFT - FRACTION_BITS)  # and this, as the fixed point is read


class LevelSum:
    """The sum of whole numbers in -2^(bits - 1) .. 2^(bits - 1) - 1."""

    def __init__(self, bits: int) -> None:
        self._bits, self._clients = bits, 0
        self._total: NDArray[np.int64] = np.zeros(0, np.int64)

    def add(self, update: State) -> None:
        vector = flatten(update, update).numpy().astype(np.int64)
        self._total = self._total + vector if self._clients else vector
        self._clients += 1

    def packed(self) -> dict[str, Tensor]:
        """Empty where nothing was added."""
        if not self._clients:
            return {}
        unsigned = (self._total + self._clients * 2 ** (self._bits - 1)).astype(np.uint64)
        return {LEVELS: torch.from_numpy(pack_bits(unsigned, _width(self._bits, self._clients)))}


def levels_in(sent: State, clients: int, bits: int, template: State) -> dict[str, Tensor]:
    """What `LevelSum` has packed of so many clients, as the fixed point of `exact_sum.py`, in the form of `template`.
    Raises ValueError for anything else."""
    if sent.keys() != {LEVELS}:
        raise ValueError("no packed levels")
    size = sum(value.numel() for value in template.values())
    found = unpack_bits(sent[LEVELS].numpy(), _width(bits, clients), size, "u8")
    highest = clients * (2**bits - 1)
    if size and (most := int(found.max())) > highest:
        raise ValueError(f"a level of {most}, and the highest of {clients} clients is {highest}")
    levels = found.astype(np.int64) - clients * 2 ** (bits - 1)
    return unflatten(torch.from_numpy(levels << SHIFT), template)


def _width(bits: int, clients: int) -> int:
    """Bits of the sum of so many clients' unsigned levels."""
    return (clients * ((1 << bits) - 1)).bit_length()
