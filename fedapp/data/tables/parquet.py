"""A Parquet file's columns, written out as text: what a table means is then found in one way only."""

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedapp.common.errors import DataError
from fedapp.data.tables.sheet import Column
from fedapp.data.tables.text import clean

__all__ = ["is_parquet", "parquet_columns"]

MAGIC = b"PAR1"


def is_parquet(content: bytes) -> bool:
    return content.startswith(MAGIC)


def parquet_columns(path: Path) -> tuple[list[Column], NDArray[np.int64]]:
    """Its columns, and the rows' numbers as if a header were row 1. A missing value becomes an empty cell.

    Raises DataError, opening with the path, for a damaged file, and columns that hold other than single values.
    """
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {str(error).splitlines()[0]}") from error
    if not len(table):
        raise DataError(f"{path}: the table is empty: it has columns, and no row")
    columns = [_column(clean(name), table.column(at), path) for at, name in enumerate(table.column_names)]
    return columns, np.arange(len(table), dtype=np.int64) + 2


def _column(name: str, values: Any, path: Path) -> Column:
    import pyarrow as pa
    import pyarrow.compute as pc  # type: ignore[import-untyped]

    kind = values.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        values = values.cast(kind)
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        # Such as one list of numbers a row: nobody has said what it is.
        return Column(name, ("",), np.zeros(len(values), dtype=np.int32), holds=str(kind))
    encoded = pc.dictionary_encode(values).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):  # several chunks, or none
        encoded = pa.concat_arrays(encoded.chunks).unify_dictionaries()
    texts = [clean(_text(value)) for value in encoded.dictionary.to_pylist()]
    seen: dict[str, int] = {}
    to = np.array([seen.setdefault(text, len(seen)) for text in [*texts, ""]], dtype=np.int32)
    codes = encoded.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False)
    typed = not (pa.types.is_string(kind) or pa.types.is_large_string(kind))
    return Column(name, tuple(seen), to[codes], typed)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat(" ") if isinstance(value, datetime) else str(value)
