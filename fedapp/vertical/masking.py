"""Embeddings as whole numbers modulo 2^64, and masks between pairs of parties that cancel in their sum.

As in Bonawitz et al. 2017, without its recovery from dropouts: all parties of a batch must be there, else the batch is
repeated with new masks.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedapp.aggregation.whole_numbers.masks import add_mask
from fedapp.vertical.party_error import PartyError
from fedapp.vertical.sealing import MASK_BYTES, derive

__all__ = ["LARGEST", "RESOLUTION", "decoded", "encoded", "masked"]

Words = NDArray[np.uint64]
RESOLUTION = 2.0**-32  # of one value: rounding moves it by half of that at most
LARGEST = 2.0**20  # of one party's values, so that the sum over 1,000 parties stays within 63 bits


def encoded(values: Tensor) -> Words:
    """Float values of any shape as fixed point modulo 2^64, flat. Raises PartyError for values that do not fit."""
    flat = values.detach().reshape(-1).to(torch.float64).numpy()
    if not (np.abs(flat) <= LARGEST).all():
        raise PartyError("out of range", f"an embedding is not finite or beyond {LARGEST:g}; lower optimizer.lr")
    return np.rint(flat / RESOLUTION).astype(np.int64).view(np.uint64)


def decoded(words: Words, shape: tuple[int, ...]) -> Tensor:
    """The float32 values of a sum, in which all masks have cancelled."""
    values = words.view(np.int64).astype(np.float64) * RESOLUTION
    return torch.from_numpy(values.astype(np.float32)).view(shape)


def masked(words: Words, me: str, channels: Mapping[str, bytes], number: int) -> Words:
    """`words` with one mask for each other party in `channels` (its name, and the secret shared with it). The party
    whose name sorts first adds, the other one subtracts. The caller never uses a `number` twice."""
    found = words.copy()
    for other, channel in sorted(channels.items()):
        key = derive(channel, "mask", *sorted((me, other)), number, length=MASK_BYTES)
        add_mask(found, key, negative=me > other)
    return found
