"""Metrics of training, appended to the vector of the update: the server learns their means over the cohort, no more.

Each metric is two entries: its value as a share of the largest that it can have, and a one; both weighted as the update
is. A client without the metric sends two zeros, so the quotient of the sums is the mean over those who have it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fedapp.aggregation.secaggplus.settings import Settings

__all__ = ["LARGEST", "decode", "encode"]

LARGEST = 1024.0  # of a loss or a metric without bounds; what lies beyond counts as absent


def encode(
    metrics: Mapping[str, float | None], largest: Mapping[str, float], settings: Settings
) -> NDArray[np.float64]:
    """Two entries for each name in `largest`, in its order."""
    found = np.zeros((len(largest), 2))
    for row, (name, most) in zip(found, largest.items(), strict=True):
        value = metrics.get(name)
        if value is not None and abs(value) <= most:
            row[:] = value / most * settings.clip, settings.clip
    return found.reshape(-1)


def decode(mean: Sequence[float] | NDArray[np.float64], largest: Mapping[str, float]) -> dict[str, float | None]:
    """From the mean entries over the cohort. A metric that nobody has is None."""
    pairs = np.asarray(mean, np.float64).reshape(len(largest), 2)
    return {
        name: float(most * value / present) if present > 0 else None
        for (value, present), (name, most) in zip(pairs, largest.items(), strict=True)
    }
