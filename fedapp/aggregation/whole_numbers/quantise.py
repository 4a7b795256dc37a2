"""Floats as whole numbers, and whole numbers as bytes.

Rounding is stochastic and unbiased: x becomes one of its two neighbours, so that the mean over many clients is right
even where each one's share is below a unit. Values beyond the clipping range are cut by the client, and then no sum
over the cohort can wrap (`FixedPoint.check_modulus`).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedapp.aggregation.whole_numbers.fixed_point import FixedPoint
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.updates.packing import pack_bits, unpack_bits

__all__ = ["MOST_CLIPPED", "fit", "pack", "quantise", "signed", "unpack"]

Ints = NDArray[np.int64]
MOST_CLIPPED = 0.01  # of an update's entries are cut


def fit(values: NDArray[np.float64], clip: float) -> tuple[NDArray[np.float64], float]:
    """An update (n,) of which no more than `MOST_CLIPPED` lies beyond `clip`, and how much of it did before.

    Where more of it does, all of it is scaled down. Entries that are cut say their signs and nothing else: were most
    of them, a server that chooses a small `clip` would read signs from the sum. Nor is such an update refused, since
    that would tell the server something of this client alone.
    """
    if not len(values):
        return values, 0.0
    sizes = np.abs(values)
    beyond = float(np.mean(sizes > clip))
    if beyond <= MOST_CLIPPED:
        return values, beyond
    last = len(values) - 1 - int(MOST_CLIPPED * len(values))
    return values * (clip / float(np.partition(sizes, last)[last])), beyond


def quantise(values: NDArray[Any], weight: float, settings: FixedPoint, random: np.random.Generator) -> Ints:
    """`weight * values` in units of `settings.step`; a weight of 1 is the cohort's mean. Raises ValueError for NaN."""
    if not np.isfinite(values).all():
        raise ValueError("a value that is not finite cannot be sent")
    scaled = np.clip(values, -settings.clip, settings.clip).astype(np.float64)
    scaled *= weight / settings.step
    scaled += random.random(len(scaled))
    whole: Ints = np.floor(scaled, out=scaled).astype(np.int64)
    return whole


def signed(vector: NDArray[Any], settings: FixedPoint) -> Ints:
    """Integers modulo 2^modulus_bits as the numbers around zero that they stand for."""
    width = 8 * vector.itemsize
    shift = width - settings.modulus_bits
    shifted = (vector << vector.dtype.type(shift)).view(vector.dtype.str.replace("u", "i"))
    whole: Ints = (shifted >> shift).astype(np.int64)
    return whole


def pack(vector: NDArray[Any], settings: FixedPoint) -> NDArray[np.uint8]:
    """The lowest `modulus_bits` of each value, as bytes."""
    return pack_bits(vector, settings.modulus_bits)


def unpack(packed: NDArray[Any], settings: FixedPoint, length: int) -> NDArray[Any]:
    """The reverse. Raises ProtocolError for another length or type."""
    try:
        return unpack_bits(packed, settings.modulus_bits, length, settings.dtype)
    except ValueError as error:
        raise ProtocolError("truncated", f"a masked vector is {error}") from None
