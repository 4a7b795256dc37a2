"""The split of a whole data set into training data and the server's held-out test data."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fedapp.common.errors import DataError
from fedapp.data.source import Examples, Pooled
from fedapp.data.whole_groups import split_whole

__all__ = ["hold_out"]


def hold_out(
    examples: Examples,
    *,
    fraction: float,
    seed: int,
    name: str,
    columns: Mapping[str, Sequence[str | int]] | None = None,
) -> Pooled:
    """`fraction` of `examples` as test data, the rest (with its part of `columns`) as training data, in row order.

    Every class keeps its share in both, unless one has a single example or the test data has fewer examples than
    there are classes; then, and for regression, the split is purely random. `fraction` 0: no test data. Groups stay
    whole, and what is held out is the latest, where examples have groups and times.
    Raises DataError, opening with `name`, where a split would leave no training data.
    """
    columns = columns or {}
    if fraction == 0:
        return Pooled(examples, None, columns)
    if examples.groups is not None or examples.times is not None:
        train_rows, test_rows = split_whole(examples, fraction, seed)
        if not len(train_rows) or not len(test_rows):
            raise DataError(
                f"{name}: data.test_fraction={fraction} cannot be held out without separating what belongs together."
                " Give more groups, or a test table of its own in data.test_path"
            )
        return _pooled(examples, train_rows.numpy(), test_rows.numpy(), columns)
    if len(examples) - math.ceil(fraction * len(examples)) < 1:
        raise DataError(
            f"{name}: {len(examples)} examples are too few to hold out data.test_fraction={fraction} of them."
            " Give more data, or set data.test_fraction=0 (no central evaluation)"
        )
    from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]

    train, test = train_test_split(
        np.arange(len(examples)),
        test_size=fraction,
        random_state=seed,
        stratify=examples.targets.numpy() if _can_stratify(examples, fraction) else None,
    )
    return _pooled(examples, np.sort(train), np.sort(test), columns)


def _pooled(
    examples: Examples, train: NDArray[np.int64], test: NDArray[np.int64], columns: Mapping[str, Sequence[str | int]]
) -> Pooled:
    kept = {key: [values[row] for row in train] for key, values in columns.items()}
    return Pooled(examples.take(torch.from_numpy(train)), examples.take(torch.from_numpy(test)), kept)


def _can_stratify(examples: Examples, fraction: float) -> bool:
    """scikit-learn's conditions: two examples of every class, room for each class on both sides."""
    if examples.targets.is_floating_point() or examples.targets.dim() > 1:
        return False
    counts = torch.unique(examples.targets, return_counts=True)[1]
    num_test = math.ceil(fraction * len(examples))
    return int(counts.min()) >= 2 and min(num_test, len(examples) - num_test) >= len(counts)
