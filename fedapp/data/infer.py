"""What the columns of a table seem to be, for a simulation that holds the whole table."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from fedapp.common.errors import DataError
from fedapp.data.checks import known
from fedapp.data.columns import parse_numbers

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]

__all__ = ["distinct", "infer_features"]

# More distinct texts than this are names, notes or numbers with a slip of the pen rather than categories.
MAX_DISTINCT = 100


def infer_features(
    cells: "pd.DataFrame",
    name: str,
    *,
    numeric: tuple[str, ...] | None,
    categorical: Mapping[str, tuple[str, ...]] | None,
    left_out: Iterable[str],
    blanks: tuple[str, ...],
) -> tuple[tuple[str, ...], Mapping[str, tuple[str, ...]]]:
    """`numeric` and `categorical`, each inferred where it is None: columns of numbers are numeric, the others
    categorical with their sorted distinct values. Columns in `left_out` are no features.

    Raises DataError, opening with `name`, for a column that fits neither, or if no feature is left.
    """
    if numeric is not None and categorical is not None:
        return numeric, categorical
    given = {*left_out, *(numeric or ()), *(categorical or {})}
    numbers: list[str] = []
    texts: dict[str, tuple[str, ...]] = {}
    for column in (column for column in cells.columns if column not in given):
        _check_usable(cells[column], name, blanks)
        wrong = parse_numbers(cells[column], blanks)[1]
        if not wrong.any():
            numbers.append(column)
            continue
        row, value = cells.index[wrong.argmax()], cells[column].iloc[wrong.argmax()]
        if categorical is None:
            remedy = f"if they are numbers, correct row {row}: {value!r}; otherwise name the column in data.ignore"
            texts[column] = distinct(cells[column], name, blanks, f"{remedy} or data.categorical")
        else:
            raise DataError(
                f"{name}: column {column!r}, row {row}: {value!r} is not a number, and data.categorical does not name"
                " the column. Correct the cell, or name the column in data.categorical or data.ignore"
            )
    numeric = tuple(numbers) if numeric is None else numeric
    categorical = texts if categorical is None else categorical
    if not (numeric or categorical):
        raise DataError(f"{name}: no column is left as a feature; the table has {known(list(cells.columns))}")
    return numeric, categorical


def distinct(series: "pd.Series", name: str, blanks: tuple[str, ...], remedy: str) -> tuple[str, ...]:
    """The distinct values of `series`, sorted by number where all are whole numbers, else by text.

    Raises DataError, opening with `name` and ending with `remedy`, where there are too many.
    """
    found = [str(value) for value in series[~series.isin(blanks)].unique()]
    if len(found) > MAX_DISTINCT:
        raise DataError(
            f"{name}: column {series.name!r} has {len(found)} distinct values; more than {MAX_DISTINCT} are not taken"
            f" for categories: {remedy}"
        )
    if all(value.isdecimal() for value in found):
        return tuple(sorted(found, key=lambda value: (int(value), value)))
    return tuple(sorted(found))


def _check_usable(series: "pd.Series", name: str, blanks: tuple[str, ...]) -> None:
    if series.name == "":
        raise DataError(
            f"{name}: a column has no name in row 1, as when row numbers were saved with the table. Name it, take it"
            " out, or set data.ignore=['']"
        )
    if series.isin(blanks).all():
        raise DataError(f"{name}: column {series.name!r} holds no value. Name it in data.ignore")
