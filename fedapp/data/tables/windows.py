"""Windows over the rows of series, in the order of their times."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedapp.common.errors import DataError
from fedapp.data.tables.table import DataTable

__all__ = ["Windows", "windows_of"]


@dataclass(frozen=True)
class Windows:
    """By window, the row that it predicts (or, without targets, its last row), and the rows that it sees, the oldest
    first: (m,) and (m, steps) int64."""

    targets: NDArray[np.int64]
    inputs: NDArray[np.int64]


def windows_of(
    table: DataTable,
    series: NDArray[np.int64],
    times: NDArray[np.float64],
    lags: NDArray[np.int64],
    horizon: int,
    time: str,
) -> Windows:
    """All windows of rows `lags` steps before the last one that is seen, which is `horizon` steps before the target.

    A window never crosses from one series (n,) to another. Raises DataError, naming the row, for two rows of one time
    in a series, and where no series is long enough.
    """
    order = np.lexsort((times, series))
    same = np.diff(series[order]) == 0
    doubled = np.zeros(len(order), dtype=bool)
    doubled[order[1:]] = same & (np.diff(times[order]) == 0)
    table.refuse(
        doubled, time, "is a time that its series has already. Name what tells the series apart in data.series"
    )
    start = np.maximum.accumulate(np.where(np.concatenate([[True], ~same]), np.arange(len(order)), 0))
    steps = np.sort(lags)[::-1] + horizon  # the oldest first
    ends = np.flatnonzero(np.arange(len(order)) - steps.max() >= start)
    if not len(ends):
        raise DataError(
            f"{table.name}: no series has the {int(steps.max()) + 1} rows that a window with its target needs. Set a"
            " smaller data.window or data.horizon"
        )
    found = Windows(order[ends], order[ends[:, None] - steps[None, :]])
    by_row = np.argsort(found.targets, kind="stable")
    return Windows(found.targets[by_row], found.inputs[by_row])
