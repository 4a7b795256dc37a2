"""Reading a table as text, so that nothing in it is turned into something else on the way."""

import csv
import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedapp.common.errors import DataError
from fedapp.data.checks import known
from fedapp.data.tables.delimiter import delimiter_of, records, without_sep_line
from fedapp.data.tables.encoding import decoded
from fedapp.data.tables.parquet import is_parquet, parquet_columns
from fedapp.data.tables.sheet import Column, Form, Sheet
from fedapp.data.tables.table import DataTable
from fedapp.data.tables.text import clean

__all__ = ["read_numbers", "read_sheet"]

GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"
SPACED = re.compile(r"[^!-~]")  # what `clean` might change
CELLS = 1_000_000  # read at once


def read_sheet(path: Path, form: Form, site: str = "") -> Sheet:
    """A CSV file, also compressed by gzip, or a Parquet file. Rows with nothing in any cell are skipped, and so are
    columns with neither a name nor a value. `site` is what the file is called among several.

    Raises DataError, opening with the path, for a file that is missing, empty, cut off or no such table.
    """
    content = _content(path)
    if is_parquet(content):
        columns, rows = parquet_columns(path)
        return Sheet(str(path), _by_name(columns, path), rows, form, site=site)
    text, encoding = decoded(path, content, form.encoding)
    text, named = without_sep_line(text)
    delimiter = form.delimiter or named or delimiter_of(text, path, form.expected)
    columns, rows = _columns(text, delimiter, path)
    shown = {"\t": "tab", " ": "space"}.get(delimiter, repr(delimiter))
    said = [] if delimiter == "," else [f"cells separated by {shown}"]
    said += [] if encoding == "utf-8" else [f"encoding {encoding}"]
    return Sheet(str(path), _by_name(columns, path), rows, form, delimiter, tuple(said), site)


def read_numbers(path: Path, columns: Sequence[str]) -> DataTable:
    """A table that has `columns`, written as the file shows."""
    return DataTable.of(str(path), [read_sheet(path.expanduser(), Form(expected=frozenset(columns)))])


def _content(path: Path) -> bytes:
    if not path.exists():
        where = "" if path.is_absolute() else f" in {Path.cwd()}. Give the path from the root"
        raise DataError(f"{path}: no such file{where}")
    if not path.is_file():
        raise DataError(f"{path}: not a file. A table is one CSV file")
    try:
        content = path.read_bytes()
        if content.startswith(GZIP):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not content:
        raise DataError(f"{path}: the file is empty. A table opens with the names of its columns")
    if content.startswith(ZIP):
        raise DataError(f"{path}: is an Excel workbook or a zip archive. Save the table as CSV in UTF-8")
    return content


def _columns(text: str, delimiter: str, path: Path) -> tuple[list[Column], NDArray[np.int64]]:
    rows = _checked(text, delimiter, path)
    names = [clean(name) for name in next(rows, [])]
    if not any(names):
        raise DataError(f"{path}: the first row is empty. A table opens with the names of its columns")
    texts: list[dict[str, int]] = [{} for _ in names]
    codes: list[list[NDArray[np.int32]]] = [[] for _ in names]
    numbers: list[NDArray[np.int64]] = []
    at = 1
    while chunk := list(islice(rows, max(1, CELLS // len(names)))):
        filled = [row for row in range(len(chunk)) if any(chunk[row]) and any(map(clean, chunk[row]))]
        _check_widths(chunk, filled, len(names), at + 1, path)
        numbers.append(np.array(filled, dtype=np.int64) + at + 1)
        at += len(chunk)
        for seen, found, cells in zip(texts, codes, zip(*(chunk[row] for row in filled), strict=True), strict=False):
            found.append(np.array([seen.setdefault(cell, len(seen)) for cell in cells], dtype=np.int32))
    if not any(map(len, numbers)):
        raise DataError(f"{path}: the table is empty: row 1 names the columns, and no row follows")
    columns = [_cleaned(name, list(seen), found) for name, seen, found in zip(names, texts, codes, strict=True)]
    return columns, np.concatenate(numbers)


def _checked(text: str, delimiter: str, path: Path) -> Iterator[list[str]]:
    count = 0
    try:
        for row in records(text, delimiter):
            count += 1
            yield row
    except csv.Error as error:
        raise DataError(
            f"{path}: row {count + 1}: not a table whose cells are separated by {delimiter!r}: {error}. Put a cell that"
            " holds the separator or a quotation mark in quotation marks, double those inside, or set data.delimiter"
        ) from error


def _check_widths(chunk: list[list[str]], filled: list[int], width: int, first: int, path: Path) -> None:
    wrong = next((row for row in filled if len(chunk[row]) != width), None)
    if wrong is not None:
        raise DataError(
            f"{path}: row {first + wrong} has {len(chunk[wrong])} cells, row 1 names {width} columns. Correct the row:"
            " a cell that holds the separator belongs in quotation marks; or set data.delimiter"
        )


def _cleaned(name: str, texts: list[str], codes: list[NDArray[np.int32]]) -> Column:
    """Texts that are the same but for spaces around them become one."""
    if not SPACED.search("".join(texts)):
        return Column(name, tuple(texts), np.concatenate(codes))
    seen: dict[str, int] = {}
    to = np.array([seen.setdefault(clean(text), len(seen)) for text in texts], dtype=np.int32)
    return Column(name, tuple(seen), to[np.concatenate(codes)])


def _by_name(columns: Sequence[Column], path: Path) -> dict[str, Column]:
    kept = [column for column in columns if column.name or any(column.texts)]
    names = [column.name for column in kept]
    if len(set(names)) < len(names):
        seen: set[str] = set()
        repeated = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise DataError(f"{path}: row 1 names the column {repeated!r} more than once; columns: {known(names)}")
    return {column.name: column for column in kept}
