"""The rows of one or more files as one table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedapp.common.errors import DataError
from fedapp.data.checks import known
from fedapp.data.tables.sheet import Column, Sheet

__all__ = ["SITE", "DataTable"]

SITE = "site"  # the column that names the file's site, unless the files have one of that name


@dataclass(frozen=True)
class DataTable:
    """The rows `kept` of each of `sheets`, one after the other. `name` opens messages that are of no row."""

    name: str
    sheets: tuple[Sheet, ...]
    kept: tuple[NDArray[np.int64], ...]

    @classmethod
    def of(cls, name: str, sheets: Sequence[Sheet]) -> "DataTable":
        """Raises DataError for files that do not have the same columns."""
        first = sheets[0]
        for sheet in sheets[1:]:
            if odd := sorted(sheet.columns.keys() ^ first.columns.keys()):
                with_it, without = (sheet, first) if odd[0] in sheet.columns else (first, sheet)
                raise DataError(f"{without.name}: no column {odd[0]!r}, which {with_it.name} has")
        if len(sheets) > 1 and SITE not in first.columns:
            sheets = [_with_site(sheet) for sheet in sheets]
        return cls(name, tuple(sheets), tuple(np.arange(len(sheet)) for sheet in sheets))

    def __len__(self) -> int:
        return sum(map(len, self.kept))

    @property
    def names(self) -> list[str]:
        return list(self.sheets[0].columns)

    @property
    def own_columns(self) -> tuple[str, ...]:
        """Columns that are in no file: the site, where there are several."""
        return (SITE,) if any(SITE in sheet.added for sheet in self.sheets) else ()

    def check(self, *names: str) -> None:
        """All these columns are there."""
        for name in names:
            if name not in self.sheets[0].columns:
                raise DataError(f"{self.name}: no column {name!r}; it has {known(self.names)}")

    def column(self, name: str) -> Column:
        """A column over all files. Raises DataError where it holds no single values."""
        parts = [
            sheet.columns[name] if len(kept) == len(sheet) else sheet.columns[name].take(kept)
            for sheet, kept in zip(self.sheets, self.kept, strict=True)
        ]
        if holds := next((part.holds for part in parts if part.holds), ""):
            raise DataError(f"{self.name}: column {name!r} holds {holds}, no single values. Name it in data.ignore")
        if len(parts) == 1:
            return parts[0]
        seen: dict[str, int] = {}
        codes = [
            np.array([seen.setdefault(text, len(seen)) for text in part.texts], np.int32)[part.codes] for part in parts
        ]
        return Column(name, tuple(seen), np.concatenate(codes), all(part.typed for part in parts))

    def numbers(self, name: str) -> NDArray[np.float64]:
        """By row, the column's number; NaN where the cell is blank or holds none."""
        return self._by_row(name, Sheet.numbers)

    def dates(self, name: str) -> NDArray[np.float64]:
        """By row, the column's day since 1970-01-01; NaN where the cell is blank or holds none."""
        return self._by_row(name, Sheet.dates)

    def _by_row(self, name: str, parsed: Callable[[Sheet, str], NDArray[np.float64]]) -> NDArray[np.float64]:
        parts = zip(self.sheets, self.kept, strict=True)
        return np.concatenate([parsed(sheet, name)[sheet.columns[name].codes[kept]] for sheet, kept in parts])

    def only(self, rows: NDArray[np.bool_]) -> "DataTable":
        """The rows where `rows` is true."""
        parts = np.split(rows, np.cumsum([len(kept) for kept in self.kept])[:-1])
        return DataTable(self.name, self.sheets, tuple(kept[part] for kept, part in zip(self.kept, parts, strict=True)))

    @cached_property
    def files(self) -> list[str]:
        """By row, the file that it is in."""
        return [sheet.name for sheet, kept in zip(self.sheets, self.kept, strict=True) for _ in kept]

    @cached_property
    def rows(self) -> list[int]:
        """By row, its number in a spreadsheet."""
        parts = zip(self.sheets, self.kept, strict=True)
        return [int(row) for sheet, kept in parts for row in sheet.rows[kept]]

    def refuse(self, bad: Any, name: str, why: str) -> None:
        """A DataError about the first row where `bad` is true, if there is one."""
        if bad.any():
            at = int(bad.argmax())
            cell = self.column(name).values()[at]
            raise DataError(f"{self.files[at]}: column {name!r}, row {self.rows[at]}: {cell!r} {why}")


def _with_site(sheet: Sheet) -> Sheet:
    column = Column(SITE, (sheet.site,), np.zeros(len(sheet), dtype=np.int32))
    return replace(sheet, columns={**sheet.columns, SITE: column}, added=(SITE,))
