"""What the columns of a table seem to be, for a simulation that holds the whole table."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedapp.common.errors import DataError
from fedapp.common.override_text import pasted
from fedapp.data.checks import known
from fedapp.data.tables.dates import parse_dates
from fedapp.data.tables.match import Blanks
from fedapp.data.tables.table import DataTable
from fedapp.data.tables.text import look

__all__ = ["Given", "Kinds", "classes_of", "distinct", "infer_kinds"]

UNITS = re.compile(r"([$€£¥<>~≈±]?)\s*[+-]?\d[\d.,' ]*\s*([^\d\s]{0,8})")
MANY = 10  # distinct numbers with one unit; fewer may be names, such as "stage 1"
SHOWN = 5  # cells in a message


@dataclass(frozen=True)
class Kinds:
    """Columns that hold numbers, dates, and categories with their values."""

    numeric: tuple[str, ...] = ()
    dates: tuple[str, ...] = ()
    categorical: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Given:
    """What the config says of columns; None: to be inferred. `as_category`: columns of categories, whatever they look
    like. `blanks` are missing values, `limit` is how many categories are inferred at most;
    with `may_be_none` no column need be a feature."""

    numeric: tuple[str, ...] | None
    dates: tuple[str, ...] | None
    categorical: Mapping[str, tuple[str, ...]] | None
    as_category: tuple[str, ...]
    blanks: Blanks
    limit: int
    ignore_case: bool = False
    may_be_none: bool = False

    def complete(self) -> Kinds | None:
        """The columns, where nothing is left to be found."""
        if self.numeric is None or self.categorical is None or self.as_category:
            return None
        return Kinds(self.numeric, self.dates or (), self.categorical)


def infer_kinds(table: DataTable, given: Given, left_out: Iterable[str]) -> Kinds:
    """Columns of numbers are numeric, columns of dates dates, the others categorical with their sorted distinct values.
    Columns in `left_out` are no features.

    Raises DataError, naming column and rows, for a column that fits none or nearly one of them, or if no feature is
    left.
    """
    named = {*left_out, *(given.numeric or ()), *(given.dates or ()), *(given.categorical or {}), *given.as_category}
    numeric, dates = list(given.numeric or ()), list(given.dates or ())
    categorical = dict(given.categorical or {})
    for column in table.names:
        if column in given.as_category:
            categorical[column] = _categories(table, column, given)
        elif column not in named:
            kind = _kind(table, column, given)
            if kind == "number" and given.numeric is None:
                numeric.append(column)
            elif kind == "date" and given.dates is None:
                dates.append(column)
            elif kind in ("number", "date"):
                continue  # data.numeric lists those that are wanted
            elif given.categorical is None:
                categorical[column] = _categories(table, column, given)
            else:
                cell = table.column(column).values()[0]
                raise DataError(
                    f"{table.name}: column {column!r}, row {table.rows[0]}: {cell!r} is not a number, and"
                    " data.categorical does not name the column. Correct the cell, or name the column in"
                    " data.categorical, data.as_category or data.ignore"
                )
    if not (numeric or dates or categorical or given.may_be_none):
        raise DataError(f"{table.name}: no column is left as a feature; the table has {known(table.names)}")
    return Kinds(tuple(numeric), tuple(dates), categorical)


def _kind(table: DataTable, name: str, given: Given) -> str:
    """number, date or text. Raises DataError where a column is one of them but for a few cells."""
    column = table.column(name)
    if name == "":
        raise DataError(
            f"{table.name}: a column has no name in row 1, as when row numbers were saved with the table. Name it, take"
            " it out, or set data.ignore=['']"
        )
    filled = ~column.blank(given.blanks)
    if not filled.any():
        raise DataError(f"{table.name}: column {name!r} holds no value. Name it in data.ignore")
    fits = _fits_number(table, name, filled)
    if fits.all():
        return "number"
    if fits.sum() > filled.sum() / 2:
        raise _nearly(table, name, filled, fits, "numbers", given)
    texts = column.filled(given.blanks)
    dated = [np.isfinite(found).sum() for found in parse_dates(texts, None)[0]]
    if max(dated) > len(texts) / 2:
        fits = np.isfinite(table.dates(name))[filled]
        if fits.all():
            return "date"
        raise _nearly(table, name, filled, fits, "dates", given)
    _check_units(table, name, texts)
    return "text"


def _fits_number(table: DataTable, name: str, filled: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return ~np.isnan(table.numbers(name)[filled])


def _nearly(
    table: DataTable, name: str, filled: NDArray[np.bool_], fits: NDArray[np.bool_], what: str, given: Given
) -> DataError:
    rows, cells = np.flatnonzero(filled)[~fits], table.column(name).values()
    odd = sorted({cells[row] for row in rows})
    shown = ", ".join(f"row {table.rows[row]}: {cells[row]!r}" for row in rows[:SHOWN])
    shown += f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    blanks = pasted("data.more_missing_values", odd[:SHOWN])
    return DataError(
        f"{table.files[rows[0]]}: column {name!r} holds {what}, but for {len(rows)} of {int(filled.sum())} cells:"
        f" {shown}. Correct them; or, if they stand for a missing value, set {blanks} and data.missing=drop or"
        f" data.missing=mean; or, if all are names of categories, {pasted('data.as_category', [name])}; or"
        f" {pasted('data.ignore', [name])}"
    )


def _check_units(table: DataTable, name: str, texts: Sequence[str]) -> None:
    found = [UNITS.fullmatch(text) for text in texts]
    units = {(match[1], match[2]) for match in found if match is not None}
    if None not in found and len(units) == 1 and len(texts) >= MANY:
        column = table.column(name)
        raise DataError(
            f"{table.files[0]}: column {name!r}, row {table.rows[0]}: {column.values()[0]!r}: all cells are numbers"
            f" with {''.join(units.pop()) or 'marks between digits'!r}. Take that out; or, if they are names of"
            f" categories, set {pasted('data.as_category', [name])}; or {pasted('data.ignore', [name])}"
        )


def _categories(table: DataTable, name: str, given: Given) -> tuple[str, ...]:
    together = f"; or, if it tells whose row it is, keep its rows together by {pasted('data.split_by', name)}"
    remedy = (
        f"leave the column out by {pasted('data.ignore', [name])}{together}; or raise data.max_categories, or list"
        " those that count in data.categorical"
    )
    return distinct(table, name, table.column(name).filled(given.blanks), given, remedy)


def distinct(table: DataTable, name: str, texts: Iterable[str], given: Given, remedy: str) -> tuple[str, ...]:
    """The distinct `texts` of a column, sorted by number where all are whole numbers, else by text.

    Raises DataError, ending with `remedy`, where there are too many.
    """
    found = sorted(set(texts))
    if given.ignore_case:
        found = list({look(text): text for text in reversed(found)}.values())
    if len(found) > given.limit:
        raise DataError(
            f"{table.name}: column {name!r} has {len(found)} distinct values, such as {known(found[:3])}; more than"
            f" data.max_categories={given.limit} are not taken for categories: {remedy}"
        )
    return _sorted(found)


def _sorted(found: Collection[str]) -> tuple[str, ...]:
    if all(value.isdecimal() for value in found):
        return tuple(sorted(found, key=lambda value: (int(value), value)))
    return tuple(sorted(found))


def classes_of(table: DataTable, label: str, given: Given) -> tuple[str, ...]:
    """The label's values. Raises DataError for a single one, too many, and numbers with a few other cells."""
    filled = ~table.column(label).blank(given.blanks)
    remedy = (
        "list them in data.classes, raise data.max_categories, or set data.regression=true if the label is a number"
    )
    classes = distinct(table, label, table.column(label).filled(given.blanks), given, remedy)
    if len(classes) < 2:
        raise DataError(f"{table.name}: column {label!r} holds {known(classes)}; a label needs two classes")
    fits = np.array([_plain(text) for text in table.column(label).texts], dtype=bool)[table.column(label).codes][filled]
    if fits.sum() > filled.sum() / 2 and not fits.all():
        rows = np.flatnonzero(filled)[~fits]
        cell = table.column(label).values()[rows[0]]
        raise DataError(
            f"{table.files[rows[0]]}: column {label!r}, row {table.rows[rows[0]]}: {cell!r} is no number as the other"
            f" labels are ({len(rows)} such cells). Correct it; or set"
            f" {pasted('data.more_missing_values', [cell])} data.missing=drop; or, if it is a class,"
            f" {pasted('data.classes', list(classes))}"
        )
    return classes


def _plain(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d+([.,]\d+)?", text, re.ASCII) is not None
