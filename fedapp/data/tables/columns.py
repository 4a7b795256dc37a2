"""What the columns of a table mean, and how rows of text become tensors."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedapp.common.errors import DataError
from fedapp.data.checks import known
from fedapp.data.source import Examples
from fedapp.data.tables.match import Blanks, Matcher
from fedapp.data.tables.several_labels import SeveralLabels
from fedapp.data.tables.table import DataTable

__all__ = ["Columns", "Missing"]

Missing = Literal["error", "drop", "mean"]


@dataclass(frozen=True)
class Columns:
    """The columns in use: `numeric` ones, `dates`, then the one-hot `categorical` ones, and `label` (None: there is
    none, or `several` at once).

    `classes` empty: regression. `blanks` are the texts that count as a missing value, `missing` says what to do
    about one. With `ignore_case` classes and categories are found whatever their case and separators. A row is given
    as a spreadsheet numbers it.
    """

    label: str | None
    numeric: tuple[str, ...]
    categorical: Mapping[str, tuple[str, ...]]
    classes: tuple[str, ...]
    missing: Missing
    blanks: Blanks
    dates: tuple[str, ...] = ()
    ignore_case: bool = False
    several: SeveralLabels | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns that labels are made from."""
        if self.several is not None:
            return self.several.columns
        return () if self.label is None else (self.label,)

    @property
    def features(self) -> tuple[str, ...]:
        one_hot = (f"{column}={value}" for column, values in self.categorical.items() for value in values)
        return (*self.numeric, *self.dates, *one_hot)

    @property
    def lists(self) -> bool:
        """Whether one column lists several labels."""
        return self.several is not None and bool(self.several.separator)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns that features are made from."""
        return (*self.numeric, *self.dates, *self.categorical)

    @property
    def used(self) -> tuple[str, ...]:
        return (*self.labels, *self.inputs)

    def unlabelled(self, table: DataTable) -> tuple[Tensor, list[str]]:
        """The rows as inputs (n, features) float32, and each one's number in a spreadsheet. A label may be there or
        not, and is not looked at; else as in training."""
        features = replace(self, label=None, several=None)
        table.check(*features.used)
        table = features.complete(table)
        return features._inputs(table), [str(row) for row in table.rows]

    def complete(self, table: DataTable, *others: str) -> DataTable:
        """`table` without the rows that `missing` = drop leaves out; `others` are columns that must be filled too."""
        if self.missing != "drop":
            return table
        kept = table.only(~np.any([self._blank(table, column) for column in (*self.used, *others)], axis=0))
        if not len(kept):
            raise DataError(f"{table.name}: data.missing=drop leaves no row: each of the {len(table)} lacks a value")
        return kept

    def encode(self, table: DataTable, *others: str) -> Examples:
        """The rows as inputs (n, features) float32 and targets: (n,) int64, float32 for regression, or (n, labels)
        float32 of 0 and 1. The `others` are not encoded, but every row must have a value there."""
        for column in others:
            self._check_filled(table, column, "Fill it in, or set data.missing=drop")
        inputs = self._inputs(table)
        return Examples(inputs, torch.from_numpy(self._targets(table)))

    def _inputs(self, table: DataTable) -> Tensor:
        # Column by column in memory: rows of many columns would be written one value a cache line.
        inputs = np.zeros((len(self.features), len(table)), dtype=np.float32)
        for at, column in enumerate((*self.numeric, *self.dates)):
            if self.missing == "error":
                self._check_filled(table, column)
            inputs[at] = self._finite(table, column)
        at = len(self.numeric) + len(self.dates)
        for column, values in self.categorical.items():
            codes = self._codes(table, column, values)
            # A missing category belongs to none.
            inputs[at + codes[codes >= 0], np.flatnonzero(codes >= 0)] = 1.0
            at += len(values)
        return torch.from_numpy(np.ascontiguousarray(inputs.T))

    def _codes(self, table: DataTable, column: str, values: tuple[str, ...]) -> NDArray[np.int64]:
        if self.missing == "error":
            self._check_filled(table, column)
        codes = Matcher(values, self.ignore_case).codes(table.column(column))
        table.refuse(
            (codes < 0) & ~self._blank(table, column),
            column,
            f"is no known category; known: {known(values)}. Correct the cell, or list the category in data.categorical",
        )
        return codes

    def _targets(self, table: DataTable) -> NDArray[np.int64] | NDArray[np.float32]:
        none = "; or, if it says that a row has no label, name it in data.no_label" if self.lists else ""
        for label in self.labels:
            self._check_filled(table, label, f"A label cannot be guessed: fill it in, or set data.missing=drop{none}")
        if self.several is not None:
            return self.several.targets(table)
        label = str(self.label)
        if not self.classes:
            return self._finite(table, label)
        codes = Matcher(self.classes, self.ignore_case).codes(table.column(label))
        table.refuse(
            codes < 0,
            label,
            f"is no known label; known: {known(self.classes)}. Correct the cell, or list the label in data.classes",
        )
        return codes

    def _finite(self, table: DataTable, column: str) -> NDArray[np.float32]:
        """The column's values as float32, NaN where blank; anything else that is no finite float32 is a DataError."""
        dated = column in self.dates
        values = table.dates(column) if dated else table.numbers(column)
        what = "a date, but {!r} is a column of dates" if dated else "a number, but {!r} is a column of numbers"
        wrong = np.isnan(values)
        if wrong.any():
            table.refuse(wrong & ~self._blank(table, column), column, f"is not {what.format(column)}. Correct the cell")
        with np.errstate(over="ignore"):
            floats = values.astype(np.float32)
        table.refuse(np.isinf(floats), column, "is infinite or too large for a float32. Correct the cell")
        return floats

    def times(self, table: DataTable, column: str) -> NDArray[np.float64]:
        """A column of numbers or dates, for the order of rows."""
        values = table.numbers(column)
        if np.isnan(values).all():
            values = table.dates(column)
        table.refuse(~np.isfinite(values), column, "is neither a number nor a date as the others are. Correct the cell")
        return values

    def _check_filled(self, table: DataTable, column: str, remedy: str = "") -> None:
        remedy = remedy or "Fill it in, or set data.missing=drop (leave such rows out) or data.missing=mean"
        table.refuse(self._blank(table, column), column, f"is a missing value. {remedy}")

    def _blank(self, table: DataTable, name: str) -> NDArray[np.bool_]:
        """Where a value is missing. A blank that is listed as a class or category, such as "NA", is a value."""
        if self.several is not None and name in self.several.columns:
            return table.column(name).blank(self.several.blanks_of(name))
        listed = self.categorical.get(name, self.classes if name == self.label else ())
        return table.column(name).blank(self.blanks.without(listed))
