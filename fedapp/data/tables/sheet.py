"""One file's cells, column by column: each distinct text once, and by row which one it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedapp.common.errors import DataError
from fedapp.common.override_text import pasted
from fedapp.data.tables import numerals
from fedapp.data.tables.dates import parse_dates
from fedapp.data.tables.match import Blanks

__all__ = ["Column", "Form", "Sheet"]

NO_TEXT = Blanks(("",))


@dataclass(frozen=True)
class Form:
    """How a table's cells are written, as far as the config says; None: as the file shows.

    `blanks` are the texts that count as a missing value. `expected` are columns that must be there, by which the right
    delimiter is known.
    """

    delimiter: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    encoding: str | None = None
    day_first: bool | None = None
    blanks: Blanks = NO_TEXT
    expected: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Column:
    """The cells of one column: `texts[codes[i]]` is that of row i. `typed`: the file holds values, which were written
    out with a decimal point. `holds` names what is in it where that is no text and no single value."""

    name: str
    texts: tuple[str, ...]
    codes: NDArray[np.int32]
    typed: bool = False
    holds: str = ""

    def values(self) -> list[str]:
        return [self.texts[code] for code in self.codes]

    def blank(self, blanks: Blanks) -> NDArray[np.bool_]:
        """By row, whether its cell is a missing value."""
        found = blanks.among(self.texts)
        if not found:
            return np.zeros(len(self.codes), dtype=bool)
        return np.array([text in found for text in self.texts], dtype=bool)[self.codes]

    def filled(self, blanks: Blanks) -> list[str]:
        """The texts that are no missing value."""
        found = blanks.among(self.texts)
        return [text for text in self.texts if text not in found]

    def take(self, rows: Any) -> "Column":
        """Some rows, with no text that is in none of them."""
        used, codes = np.unique(self.codes[rows], return_inverse=True)
        return replace(self, texts=tuple(self.texts[at] for at in used), codes=codes.astype(np.int32))


@dataclass(frozen=True)
class Sheet:
    """The cells of the file called `name`. `rows` are numbered as a spreadsheet does (header: row 1). What a column's
    numbers and dates are follows from this file alone, `said` is what else was found of how it is
    written. `site` is what the file is called among several, `added` are columns that are not in it."""

    name: str
    columns: Mapping[str, Column]
    rows: NDArray[np.int64]
    form: Form
    delimiter: str = ""
    said: tuple[str, ...] = ()
    site: str = ""
    added: tuple[str, ...] = ()
    _numbers: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    marks: dict[str, numerals.Marks] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    def numbers(self, name: str) -> NDArray[np.float64]:
        """The column's texts as numbers, NaN where blank or no number. Raises DataError where the marks are unclear."""
        if name not in self._numbers:
            column = self.columns[name]
            self.marks[name], found = self._settled(column, column.filled(self.form.blanks))
            if len(found) < len(column.texts):
                blank = self.form.blanks.among(column.texts)
                values = np.full(len(column.texts), np.nan)
                values[[text not in blank for text in column.texts]] = found
                found = values
            self._numbers[name] = found
        return self._numbers[name]

    def dates(self, name: str) -> NDArray[np.float64]:
        """The column's texts as days since 1970-01-01, NaN where blank or no date. Raises DataError where day and month
        cannot be told apart."""
        texts = self.columns[name].texts
        found, unclear = parse_dates(texts, self.form.day_first)
        if unclear is not None:
            raise DataError(
                f"{self._place(name, texts.index(unclear))}: {unclear!r} may begin with the day or with the month. Set"
                " data.day_first=true or data.day_first=false"
            )
        return found[0]

    def _settled(self, column: Column, texts: list[str]) -> tuple[numerals.Marks, NDArray[np.float64]]:
        allowed = (numerals.PLAIN,) if column.typed else numerals.choices(self.form.decimal, self.form.thousands)
        try:
            return numerals.settle(texts, allowed, lambda: self._proved, self.delimiter in ("", ","))
        except numerals.AmbiguousError as unclear:
            readings = " or ".join(f"{numerals.parse([unclear.text], marks)[0]:g}" for marks in unclear.marks)
            marks = [pasted("data.decimal", mark) for mark in sorted({marks.decimal for marks in unclear.marks})]
            raise DataError(
                f"{self._place(column.name, column.texts.index(unclear.text))}: {unclear.text!r} may be {readings},"
                f" and no other column shows which. Set {' or '.join(marks)}"
            ) from None

    @cached_property
    def _proved(self) -> str | None:
        """The decimal mark that the columns of numbers prove, if they agree."""
        allowed = numerals.choices(self.form.decimal, self.form.thousands)
        found = set()
        for column in self.columns.values():
            if (texts := column.filled(self.form.blanks)) and not column.typed:
                found.add(numerals.certain(texts, allowed))
        found.discard(None)
        return found.pop() if len(found) == 1 else None

    def _place(self, name: str, text: int) -> str:
        row = self.rows[int(np.argmax(self.columns[name].codes == text))]
        return f"{self.name}: column {name!r}, row {row}"
