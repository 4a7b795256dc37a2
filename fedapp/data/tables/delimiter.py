"""What separates the cells of a text, found by trying: with the right one, all rows have as many cells as the header.

csv.Sniffer goes by how often characters occur, and takes letters, decimal commas or spaces for delimiters.
"""

import csv
import io
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from fedapp.common.errors import DataError
from fedapp.common.override_text import pasted
from fedapp.data.tables.text import clean

__all__ = ["NAMES", "delimiter_of", "records", "without_sep_line"]

NAMES = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " ", "colon": ":"}
USUAL, RARE = [",", ";", "\t", "|"], [" ", ":"]
SAMPLE = 1000  # records
SEP_LINE = re.compile(r'\s*"?sep=(.)"?[ \t]*(\r\n|\n|\r|$)', re.IGNORECASE)


def without_sep_line(text: str) -> tuple[str, str | None]:
    """The text after Excel's line `sep=;`, and the delimiter that it names; None: there is no such line."""
    found = SEP_LINE.match(text)
    return (text[found.end() :], found[1]) if found else (text, None)


def records(text: str, delimiter: str) -> Iterator[list[str]]:
    """The rows of `text`. Raises csv.Error for quotation marks that are not closed, or closed too soon."""
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)


def delimiter_of(text: str, path: Path, expected: Collection[str]) -> str:
    """The delimiter under which the header has the `expected` columns and every row as many cells as the header.

    Where there is none, the one that fits most rows. Raises DataError where several fit alike.
    """
    for candidates in (USUAL, RARE):
        fits = {candidate: _fit(text, candidate, expected) for candidate in candidates}
        # With all columns there; then the share of rows that fit; then how many columns.
        best = max(fits.values())
        # Names and texts of a single column have spaces and colons, too: these must fit every row.
        if best[1] == 0 or (candidates is RARE and best[1] < 1):
            continue
        chosen = [candidate for candidate, fit in fits.items() if fit[:2] == best[:2]]
        if len(chosen) > 1 and best[1] == 1.0:
            options = " or ".join(pasted("data.delimiter", candidate) for candidate in chosen)
            raise DataError(f"{path}: cells may be separated by {' or '.join(map(repr, chosen))}. Set {options}")
        return max(chosen, key=lambda candidate: fits[candidate])
    return ","


def _fit(text: str, delimiter: str, expected: Collection[str]) -> tuple[bool, float, int]:
    rows: list[list[str]] = []
    with suppress(csv.Error):  # told of by whoever reads the whole text
        rows.extend(islice(records(text, delimiter), SAMPLE))
    rows = [row for row in rows if any(clean(cell) for cell in row)]
    if not rows or len(rows[0]) < 2:
        return False, 0.0, 0
    header = {clean(name) for name in rows[0]}
    alike = sum(len(row) == len(rows[0]) for row in rows)
    return all(name in header for name in expected), alike / len(rows), len(rows[0])
