"""Reading a CSV file as text, so that nothing in it is turned into something else on the way."""

from pathlib import Path
from typing import TYPE_CHECKING

from fedapp.common.errors import DataError
from fedapp.data.checks import known

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]

__all__ = ["read_cells"]


def read_cells(path: Path, delimiter: str) -> "pd.DataFrame":
    """Every cell as text under its column's name; the index is the row's number in a spreadsheet (header: row 1).

    Expects UTF-8 and a header. Rows with nothing in any cell and spaces after a delimiter are skipped.
    Raises DataError, opening with the path, for a file that is missing, empty, not UTF-8 or not such a table.
    """
    import pandas as pd

    _check_file(path)
    try:
        # Without header=None pandas renames a repeated column, and takes an unnamed first one for the index.
        cells = pd.read_csv(
            path,
            header=None,
            dtype=str,
            keep_default_na=False,
            na_values=[],
            sep=delimiter,
            encoding="utf-8-sig",
            skip_blank_lines=False,
            skipinitialspace=True,
            low_memory=False,
        ).fillna("")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {_not_utf8(path)}. Save it as CSV in UTF-8") from error
    except pd.errors.EmptyDataError as error:
        raise DataError(f"{path}: the first row is empty. A table opens with the names of its columns") from error
    except (pd.errors.ParserError, OSError, ValueError) as error:
        raise DataError(
            f"{path}: not a table whose cells are separated by {delimiter!r}: {str(error).strip()}. Put a cell that"
            " holds the separator or a quotation mark in quotation marks, or set data.delimiter"
        ) from error
    return _below_header(cells, path)


def _check_file(path: Path) -> None:
    if not path.exists():
        where = "" if path.is_absolute() else f" in {Path.cwd()}. Give the path from the root"
        raise DataError(f"{path}: no such file{where}")
    if not path.is_file():
        raise DataError(f"{path}: not a file. A table is one CSV file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty. A table opens with the names of its columns")


def _below_header(cells: "pd.DataFrame", path: Path) -> "pd.DataFrame":
    columns = [str(name).strip() for name in cells.iloc[0]]
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if repeated:
        raise DataError(f"{path}: row 1 names the column {repeated[0]!r} more than once; columns: {known(columns)}")
    cells.columns = columns
    cells.index = cells.index + 1
    cells = cells.iloc[1:]
    cells = cells[(cells != "").any(axis=1)]
    if not len(cells):
        raise DataError(f"{path}: the table is empty: row 1 names the columns, and no row follows")
    return cells


def _not_utf8(path: Path) -> str:
    try:
        path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        return f"row {line}: byte 0x{error.object[error.start]:02x} is not UTF-8"
    return "not UTF-8"
