"""Metrics of training, appended to the vector of the update: the server learns their means over the cohort, no more.

Each metric is three entries: its value as a share of the largest that it can have, a one where that was sent, and a one
where the value is larger than can be sent; all weighted as the update is. A client without the metric sends zeros, so
the quotient of the first two sums is the mean over those who have it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedapp.aggregation.whole_numbers.fixed_point import FixedPoint

__all__ = ["ENTRIES", "LARGEST", "Decoded", "decode", "encode"]

ENTRIES = 3  # of a metric
SLACK = 1e-9  # of float64 arithmetic
LARGEST = 1024.0  # of a loss or a metric without bounds


@dataclass(frozen=True)
class Decoded:
    """`means` over the clients that have a metric; None where nobody has it. `beyond`: the share of the cohort, by
    weight, whose value is too large to be sent, and so in no mean. `impossible`: metrics whose sums no values give, as
    from a client that sends what it likes; they have no mean."""

    means: Mapping[str, float | None]
    beyond: Mapping[str, float]
    impossible: tuple[str, ...] = ()


def encode(
    metrics: Mapping[str, float | None], largest: Mapping[str, float], settings: FixedPoint
) -> NDArray[np.float64]:
    """`ENTRIES` entries for each name in `largest`, in its order. NaN is no value."""
    found = np.zeros((len(largest), ENTRIES))
    for row, (name, most) in zip(found, largest.items(), strict=True):
        value = metrics.get(name)
        if value is None or math.isnan(value):
            continue
        if abs(value) <= most:
            row[:2] = value / most * settings.clip, settings.clip
        else:
            row[2] = settings.clip
    return found.reshape(-1)


def decode(
    mean: Sequence[float] | NDArray[np.float64],
    largest: Mapping[str, float],
    settings: FixedPoint,
    *,
    rounding: float = 0.0,
    lowest: Mapping[str, float] | None = None,
) -> Decoded:
    """From the mean entries over the cohort, of which rounding has moved each by `rounding` at most.

    `lowest`: by name, the lowest value that a metric can have, where that is not -`largest`. A mean lies between the
    lowest and the largest value, and the shares of those who have one and of those beyond are 1 at most together.
    """
    rows = np.asarray(mean, np.float64).reshape(len(largest), ENTRIES) / settings.clip
    slack = 2 * rounding / settings.clip + SLACK  # two entries are compared
    means: dict[str, float | None] = {}
    beyond: dict[str, float] = {}
    impossible: list[str] = []
    for (value, present, above), (name, most) in zip(rows.tolist(), largest.items(), strict=True):
        least = (lowest or {}).get(name, -most)
        shares = min(present, above) >= -slack and present + above <= 1 + slack
        if not shares or not least / most * present - slack <= value <= present + slack:
            means[name] = None
            impossible.append(name)
            continue
        means[name] = min(max(most * value / present, least), most) if present > 0 else None
        if above > 0:
            beyond[name] = above
    return Decoded(means, beyond, tuple(impossible))
