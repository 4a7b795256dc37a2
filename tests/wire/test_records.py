"""Arrays on the wire are Flower's own, byte for byte; of what others send nothing but numbers is read."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord

from fedapp.wire.records import arrays_to_state, state_to_arrays

TENSORS = {
    "matrix": torch.arange(6.0).reshape(2, 3),
    "transposed": torch.arange(6.0).reshape(2, 3).T,
    "scalar": torch.tensor(2.5),
    "nothing": torch.zeros(0, 3),
    "sum": torch.tensor([2**62, -(2**62)]),
    "half": torch.ones(3, dtype=torch.float16),
    "double": torch.full((2, 2), 1 / 3, dtype=torch.float64),
    "flags": torch.tensor([True, False]),
    "strided": torch.arange(10)[::3],
}


def test_arrays_are_what_flower_makes_of_them() -> None:
    arrays = state_to_arrays(TENSORS)
    assert list(arrays) == list(TENSORS)
    for name, value in TENSORS.items():
        flowers = Array(value.contiguous().numpy())
        ours = arrays[name]
        assert (ours.dtype, ours.shape, ours.stype, ours.data) == (
            *(flowers.dtype, flowers.shape, flowers.stype, flowers.data),
        )


@pytest.mark.parametrize("copy", [True, False])
def test_tensors_come_back_as_they_were(copy: bool) -> None:
    found = arrays_to_state(state_to_arrays(TENSORS), copy=copy)
    for name, value in TENSORS.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        assert torch.equal(found[name], value)


def test_a_copy_shares_nothing_with_the_record() -> None:
    arrays = state_to_arrays(TENSORS)
    before = arrays["matrix"].data
    arrays_to_state(arrays)["matrix"].zero_()
    assert arrays["matrix"].data == before
    assert torch.equal(arrays_to_state(arrays)["matrix"], TENSORS["matrix"])


def sent(values: Any, **changed: Any) -> ArrayRecord:
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=True)
    about = {"dtype": str(values.dtype), "shape": values.shape, "stype": "numpy.ndarray", "data": stream.getvalue()}
    return ArrayRecord({"w": Array(**{**about, **changed})})


def test_other_forms_of_numpys_format_are_read_too() -> None:
    """Columns first, and a header of its second version."""
    columns = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    assert torch.equal(arrays_to_state(sent(columns))["w"], torch.arange(6.0).reshape(2, 3).double())
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.arange(3.0), version=(2, 0))
    found = arrays_to_state(sent(np.arange(3.0), data=stream.getvalue()))
    assert torch.equal(found["w"], torch.arange(3.0).double())


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize(
    "record",
    [
        sent(np.array([{"a": 1}], dtype=object)),  # pickle
        sent(np.array(["text"])),
        sent(np.arange(3.0), data=b""),
        sent(np.arange(3.0), data=b"\x93NUMPY\x01\x00"),
        sent(np.arange(3.0), data=sent(np.arange(3.0))["w"].data[:-1]),
        sent(np.arange(3.0), stype="torch"),
    ],
    ids=["object", "text", "empty", "torn header", "torn values", "another kind"],
)
def test_what_is_no_array_of_numbers_is_refused(record: ArrayRecord, copy: bool) -> None:
    with pytest.raises((ValueError, TypeError, EOFError)):
        arrays_to_state(record, copy=copy)


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("length", [0, 1, 1000])
def test_a_vector_of_bytes_travels_without_a_header(length: int, copy: bool) -> None:
    packed = torch.arange(length).to(torch.uint8)
    arrays = state_to_arrays({"packed": packed, "image": packed.reshape(1, -1)})
    assert len(arrays["packed"].data) == length
    assert len(arrays["image"].data) == 128 + length  # has a shape to say
    found = arrays_to_state(arrays, copy=copy)
    assert torch.equal(found["packed"], packed)
    assert torch.equal(found["image"], packed.reshape(1, -1))


def test_bytes_are_bytes_whatever_their_sender_says_of_them() -> None:
    lies = Array(dtype="float64", shape=(10**12,), stype="bytes", data=b"abc")
    assert arrays_to_state(ArrayRecord({"w": lies}))["w"].tolist() == list(b"abc")
