"""What a hostile SuperNode or server may make of a message: any record, any value, any array."""

import io
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import numpy as np
from array_values import values_of
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

__all__ = ["bomb", "copy_of", "mutated"]

NUMBERS = [-1, 0, 1, 2**31, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 0.5, -0.0, 1e300, float("nan"), float("inf")]
TEXTS = ["", "x", "\x00\x1b[31m\n", "é" * 1000, "\u202e", "[" * 5000, "{}", "9" * 5000, "../../x", "x" * 100_000]
OTHERS = [True, b"", b"\x00" * 100, [], [True], [float("nan")], [1] * 1000, ["x"] * 100, [b"x"], [2**62, -1]]


def copy_of(content: RecordDict) -> RecordDict:
    """Records of its own, which share arrays with those of `content`."""
    return RecordDict({name: type(record)(dict(record.items())) for name, record in content.items()})


def mutated(random: Random, content: RecordDict, most: int = 3) -> RecordDict:
    """A copy of `content` with one to `most` changes."""
    found = copy_of(content)
    for _ in range(random.randint(1, most)):
        with suppress(Exception):  # what Flower or NumPy refuse to make cannot be sent
            random.choice(CHANGES)(random, found)
    return found


def bomb(shape: tuple[int, ...], *, fortran: bool = False) -> Array:
    """A few bytes that say that they are an array of this shape."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": fortran, "shape": shape})
    return Array(dtype="float32", shape=shape, stype="numpy.ndarray", data=stream.getvalue())


def _record(random: Random, content: RecordDict, *kinds: type) -> Any:
    return random.choice([record for record in content.values() if isinstance(record, kinds)] or [{}])


def _drop_record(random: Random, content: RecordDict) -> None:
    content.pop(random.choice(list(content)))


def _add_record(random: Random, content: RecordDict) -> None:
    name = random.choice(
        ["arrays", "config", "metrics", "secure", "arrays-7", "arrays-x", "client-0", "x", f"arrays-{10**30}"]
    )
    kind: Any = random.choice([ArrayRecord, ConfigRecord, MetricRecord])
    content[name] = kind()


def _drop_key(random: Random, content: RecordDict) -> None:
    record = _record(random, content, ConfigRecord, MetricRecord, ArrayRecord)
    record.pop(random.choice(list(record) or ["x"]))


def _set_value(random: Random, content: RecordDict) -> None:
    record = _record(random, content, ConfigRecord, MetricRecord)
    record[random.choice(list(record) or ["x"])] = random.choice([*NUMBERS, *TEXTS, *OTHERS])


def _change_list(random: Random, content: RecordDict) -> None:
    record = _record(random, content, ConfigRecord, MetricRecord)
    key = random.choice([key for key, value in record.items() if isinstance(value, list)] or ["x"])
    found = list(record[key])
    where = random.randrange(len(found) + 1)
    same = [value for value in [*NUMBERS, *TEXTS, b"", b"x" * 50] if not found or type(value) is type(found[0])]
    found[where : where + random.randint(0, 1)] = [random.choice(same or [0])] * random.randint(0, 2)
    record[key] = found


def _change_array(random: Random, content: RecordDict) -> None:
    record = _record(random, content, ArrayRecord)
    key = random.choice(list(record) or ["x"])
    array = record[key]
    record[key] = random.choice(ARRAYS)(random, array)


def _rename_array(random: Random, content: RecordDict) -> None:
    record = _record(random, content, ArrayRecord)
    key = random.choice(list(record) or ["x"])
    record[random.choice(["", "x" * 1000, "../x", "net"])] = record.pop(key)


def _with_data(array: Array, data: bytes) -> Array:
    return Array(dtype=array.dtype, shape=tuple(array.shape), stype=array.stype, data=data)


def _flip(random: Random, array: Array) -> Array:
    data = bytearray(array.data)
    data[random.randrange(min(len(data), 128))] ^= 1 << random.randrange(8)
    return _with_data(array, bytes(data))


def _filled(random: Random, array: Array) -> Array:
    with np.errstate(all="ignore"):
        fill = random.choice([float("nan"), float("inf"), 1e30, -1e38, 0.0])
        return Array(np.full(values_of(array).shape, fill, dtype=values_of(array).dtype))


ARRAYS: list[Callable[[Random, Array], Array]] = [
    _flip,
    _flip,
    _filled,
    lambda random, array: _with_data(array, array.data[: random.randrange(len(array.data))]),
    lambda random, array: _with_data(array, array.data + b"\x00" * random.randint(1, 9)),
    lambda random, array: Array(
        values_of(array).astype(random.choice(["float64", "int8", "uint64", "bool", "complex64"]))
    ),
    lambda random, array: Array(values_of(array)[None]),
    lambda random, array: Array(np.asfortranarray(values_of(array))),
    lambda random, array: bomb((10**12,)),
    lambda random, array: bomb((0, 10**30)),
    lambda random, array: bomb((10**6, 10**6), fortran=True),
    lambda random, array: bomb((1,) * 100),
    lambda random, array: Array(dtype="x", shape=(10**9,), stype=random.choice(["", "torch"]), data=array.data),
    lambda random, array: _with_data(array, b"\x93NUMPY\x01\x00" + b"\xff\xff" + b"(" * 9000),
    lambda random, array: Array(np.zeros(1 << 18, dtype=np.float32)),
]
CHANGES: list[Callable[[Random, RecordDict], None]] = [
    _drop_record,
    _add_record,
    _drop_key,
    _set_value,
    _set_value,
    _change_list,
    _change_list,
    _change_array,
    _change_array,
    _rename_array,
]
