"""What the columns of a table mean, and how rows of text become tensors."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from fedapp.common.errors import DataError
from fedapp.data.checks import known
from fedapp.data.csv_file import read_cells
from fedapp.data.source import Examples

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]

__all__ = ["Columns", "Missing", "parse_numbers"]

Missing = Literal["error", "drop", "mean"]


@dataclass(frozen=True)
class Columns:
    """The columns in use: `numeric` ones, then the one-hot `categorical` ones, and `label` (None: there is none).

    `classes` empty: regression. `blanks` are the texts that count as a missing value, `missing` says what to do
    about one. `name` in the methods opens every DataError; a row is given as a spreadsheet numbers it.
    """

    label: str | None
    numeric: tuple[str, ...]
    categorical: Mapping[str, tuple[str, ...]]
    classes: tuple[str, ...]
    missing: Missing
    blanks: tuple[str, ...]

    @property
    def features(self) -> tuple[str, ...]:
        one_hot = (f"{column}={value}" for column, values in self.categorical.items() for value in values)
        return (*self.numeric, *one_hot)

    @property
    def _used(self) -> tuple[str, ...]:
        return (*(() if self.label is None else (self.label,)), *self.numeric, *self.categorical)

    def unlabelled(self, path: Path, delimiter: str) -> tuple[Tensor, list[str]]:
        """The rows of a CSV file as inputs (n, features) float32, and each one's number in a spreadsheet. A label may
        be there or not, and is not looked at; else as in training."""
        features, name = replace(self, label=None), str(path)
        cells = read_cells(path.expanduser(), delimiter)
        features.check(cells, name)
        cells = features.complete(cells, name)
        return features._inputs(cells, name), [str(row) for row in cells.index]

    def check(self, cells: "pd.DataFrame", name: str, *others: str) -> None:
        """All columns in use, and `others`, are there."""
        for column in (*self._used, *others):
            if column not in cells.columns:
                raise DataError(f"{name}: no column {column!r}; it has {known(list(cells.columns))}")

    def complete(self, cells: "pd.DataFrame", name: str, *others: str) -> "pd.DataFrame":
        """`cells` without the rows that `missing` = drop leaves out; `others` are columns that must be filled too."""
        if self.missing != "drop":
            return cells
        kept = cells[~np.any([self._blank(cells[column]) for column in (*self._used, *others)], axis=0)]
        if not len(kept):
            raise DataError(f"{name}: data.missing=drop leaves no row: each of the {len(cells)} lacks a value")
        return kept

    def encode(self, cells: "pd.DataFrame", name: str, *others: str) -> Examples:
        """The rows of `cells` as inputs (n, features) float32 and targets (n,) int64, or float32 for regression.
        The `others` are not encoded, but every row must have a value there."""
        for column in others:
            self._check_filled(cells[column], name, "Fill it in, or set data.missing=drop")
        inputs = self._inputs(cells, name)
        return Examples(inputs, torch.from_numpy(self._targets(cells[self.label], name)))

    def _inputs(self, cells: "pd.DataFrame", name: str) -> Tensor:
        inputs = np.empty((len(cells), len(self.features)), dtype=np.float32)
        for at, column in enumerate(self.numeric):
            inputs[:, at] = self._numbers(cells[column], name)
        at = len(self.numeric)
        for column, values in self.categorical.items():
            inputs[:, at : at + len(values)] = self._one_hot(cells[column], values, name)
            at += len(values)
        return torch.from_numpy(inputs)

    def _numbers(self, series: "pd.Series", name: str) -> Any:
        if self.missing == "error":
            self._check_filled(series, name)
        return _finite(series, self.blanks, name)

    def _one_hot(self, series: "pd.Series", values: tuple[str, ...], name: str) -> Any:
        import pandas as pd

        if self.missing == "error":
            self._check_filled(series, name)
        codes = pd.Index(values).get_indexer(series)  # -1: not among `values`
        _refuse(
            (codes < 0) & ~self._blank(series),
            series,
            name,
            f"is no known category; known: {known(values)}. Correct the cell, or list the category in data.categorical",
        )
        # A missing category belongs to none: the row of zeros below the identity matrix.
        return np.vstack([np.eye(len(values), dtype=np.float32), np.zeros(len(values), dtype=np.float32)])[codes]

    def _targets(self, series: "pd.Series", name: str) -> Any:
        import pandas as pd

        self._check_filled(series, name, "A label cannot be guessed: fill it in, or set data.missing=drop")
        if not self.classes:
            return _finite(series, (), name)
        codes = pd.Index(self.classes).get_indexer(series).astype(np.int64)
        _refuse(
            codes < 0,
            series,
            name,
            f"is no known label; known: {known(self.classes)}. Correct the cell, or list the label in data.classes",
        )
        return codes

    def _check_filled(self, series: "pd.Series", name: str, remedy: str = "") -> None:
        remedy = remedy or "Fill it in, or set data.missing=drop (leave such rows out) or data.missing=mean"
        _refuse(self._blank(series), series, name, f"is a missing value. {remedy}")

    def _blank(self, series: "pd.Series") -> Any:
        """Where a value is missing. A blank that is listed as a class or category, such as "NA", is a value."""
        listed = self.categorical.get(str(series.name), self.classes if series.name == self.label else ())
        return series.isin([blank for blank in self.blanks if blank not in listed]).to_numpy()


def parse_numbers(series: "pd.Series", blanks: tuple[str, ...]) -> tuple[Any, Any]:
    """`series` as float64, NaN where blank or no number, and where it is neither blank nor a number (bool)."""
    import pandas as pd

    blank = series.isin(blanks)
    values = pd.to_numeric(series.mask(blank), errors="coerce").to_numpy(dtype=np.float64)
    return values, np.isnan(values) & ~blank.to_numpy()


def _finite(series: "pd.Series", blanks: tuple[str, ...], name: str) -> Any:
    """`series` as float32, NaN where blank; anything else that is not a finite float32 is a DataError."""
    values, wrong = parse_numbers(series, blanks)
    _refuse(wrong, series, name, f"is not a number, but {series.name!r} is a column of numbers. Correct the cell")
    with np.errstate(over="ignore"):
        floats = values.astype(np.float32)
    _refuse(np.isinf(floats), series, name, "is infinite or too large for a float32. Correct the cell")
    return floats


def _refuse(bad: Any, series: "pd.Series", name: str, why: str) -> None:
    """A DataError about the first row where `bad` is true."""
    if bad.any():
        at = int(bad.argmax())
        raise DataError(f"{name}: column {series.name!r}, row {series.index[at]}: {series.iloc[at]!r} {why}")
