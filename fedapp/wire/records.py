"""Record names, and tensors and lists of numbers in Flower's records."""

import math
import warnings
from collections.abc import Mapping
from io import BytesIO

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, RecordDict
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "ARRAYS",
    "CONFIG",
    "METRICS",
    "absent",
    "arrays_to_state",
    "content_bytes",
    "count",
    "number",
    "numbers",
    "present",
    "said_of",
    "size",
    "state_to_arrays",
    "tensor_bytes",
    "text",
    "whole",
]

ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
BYTES = "bytes"  # the form of a vector of bytes, beside Flower's "numpy.ndarray"
LARGEST_FIGURE = 1e100
LONGEST_TEXT = 500  # characters
READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def state_to_arrays(state: Mapping[str, Tensor]) -> ArrayRecord:
    """Tensors as an ArrayRecord, in the order of the mapping."""
    return ArrayRecord({key: _encode(value.detach().cpu().numpy()) for key, value in state.items()})


def arrays_to_state(arrays: ArrayRecord, *, copy: bool = True) -> dict[str, Tensor]:
    """The tensors of an ArrayRecord. Raises ValueError for anything but numeric arrays (no pickle).

    Without `copy` they may share the record's memory: to be read only.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return {key: torch.from_numpy(_decode(array, copy=copy)) for key, array in arrays.items()}


def _encode(values: NDArray[np.generic]) -> Array:
    """What Flower makes of an array, NumPy's own format, in a third of the time: each value is copied once. A vector of
    bytes travels as it is: what is packed into a few bytes has no room for a header of 128."""
    values = np.asarray(values, order="C")
    if values.dtype == np.uint8 and values.ndim == 1:
        return Array(dtype="uint8", shape=values.shape, stype=BYTES, data=values.tobytes())
    header = BytesIO()
    npy.write_array_header_1_0(header, npy.header_data_from_array_1_0(values))
    data = b"".join((header.getvalue(), values.reshape(-1).view(np.uint8).data))
    return Array(dtype=str(values.dtype), shape=values.shape, stype="numpy.ndarray", data=data)


def _decode(array: Array, *, copy: bool) -> NDArray[np.generic]:
    """The values, by NumPy's reader of headers. What a header promises is there before any memory is taken for it."""
    if array.stype == BYTES:
        packed = np.frombuffer(array.data, np.uint8)
        return packed.copy() if copy else packed
    if array.stype != "numpy.ndarray":
        raise ValueError(f"expected a NumPy array, got {text(array.stype)}")
    stream = BytesIO(array.data)
    try:
        shape, fortran_order, dtype = READERS[npy.read_magic(stream)](stream)
    except Exception:  # a parser of Python literals has many
        raise ValueError("an array without a header of NumPy's format") from None
    start, count = stream.tell(), math.prod(shape)
    if dtype.kind not in "biuf" or len(array.data) != start + count * dtype.itemsize:
        raise ValueError("an array that is not of numbers, or not of as many as it says")
    try:
        flat = np.frombuffer(array.data, dtype, count, start)
        values = flat.reshape(shape[::-1]).T if fortran_order else flat.reshape(shape)
    except (ValueError, OverflowError):
        raise ValueError("an array whose shape cannot be") from None
    return values.copy() if copy else values


def tensor_bytes(content: RecordDict) -> int:
    """Bytes of tensors that this content puts on the wire."""
    return sum(len(array.data) for record in content.array_records.values() for array in record.values())


def content_bytes(content: RecordDict) -> int:
    """The same, with keys and shares: bytes of tensors, and of whatever else travels as bytes."""
    found = tensor_bytes(content)
    for record in content.config_records.values():
        for value in record.values():
            items = value if isinstance(value, list) else [value]
            found += sum(len(item) for item in items if isinstance(item, bytes))
    return found


def size(content: RecordDict) -> int:
    """About how many bytes all of it takes, without looking at each number."""
    found = tensor_bytes(content)
    for name, record in content.items():
        found += len(name)
        for key, value in record.items():
            found += len(key) + (0 if isinstance(value, Array) else _size(value))
    return found


def _size(value: object) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, list):
        return sum(map(len, value)) if value and isinstance(value[0], str | bytes) else 8 * len(value)
    return 8


def present(value: float | None) -> float:
    """MetricRecord holds numbers only: an absent figure travels as NaN."""
    return math.nan if value is None else value


def absent(value: float) -> float | None:
    """The figure, or None where it was absent, is not finite, or is too large for a mean."""
    return float(value) if abs(value) < LARGEST_FIGURE else None


def number(value: object) -> float:
    """A number from a record. Raises TypeError."""
    if isinstance(value, int | float):
        return value
    raise TypeError(f"expected a number, got {type(value).__name__}")


def whole(value: object) -> int:
    """A whole number from a record, exact as a float has it. Raises TypeError or ValueError."""
    found = number(value)
    if not math.isfinite(found) or found != int(found) or not abs(found) < 2**63:
        raise ValueError(f"expected a whole number, got {found}")
    return int(found)


def count(value: object) -> int:
    """A whole number from 0 to 2^53. Raises TypeError or ValueError."""
    found = whole(value)
    if not 0 <= found <= 2**53:
        raise ValueError(f"expected a count, got {found}")
    return found


def text(value: object) -> str:
    """One line of text from a record: no control characters, 500 characters at most, fit for a log. Raises
    TypeError."""
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {type(value).__name__}")
    return "".join(character if character.isprintable() else " " for character in value[:LONGEST_TEXT])


def said_of(error: Exception) -> str:
    """What is said of an error that a message from elsewhere caused: its text may hold what was sent."""
    return text(str(error)) or type(error).__name__


def numbers(value: object) -> list[float]:
    """A list of numbers from a record. Raises TypeError."""
    if isinstance(value, list) and all(isinstance(item, int | float) for item in value):
        return value
    raise TypeError(f"expected a list of numbers, got {type(value).__name__}")
