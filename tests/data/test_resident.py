"""Which clients' data stays on a device; torch's `meta` device stands for a GPU, since it holds no values."""

import torch

from fedapp.data.resident import Resident
from fedapp.data.shards import ClientData
from fedapp.data.source import Examples


def data(rows: int) -> ClientData:
    return ClientData(
        Examples(torch.zeros(rows, 2), torch.zeros(rows, dtype=torch.int64)),
        Examples(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64)),
    )


def test_on_the_cpu_nothing_is_copied() -> None:
    mine = data(3)
    assert Resident(torch.device("cpu"))(0, mine) is mine


def test_data_moves_once_and_stays() -> None:
    resident = Resident(torch.device("meta"))
    first = resident(0, data(3))
    tensors = (first.train.inputs, first.train.targets, first.validation.inputs, first.validation.targets)
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert first.train.inputs.shape == (3, 2)
    assert resident(0, data(3)) is first
    assert resident(1, data(4)) is not first


def test_what_has_no_room_stays_where_it_is() -> None:
    resident = Resident(torch.device("meta"), most_bytes=100)  # an example has 16 bytes
    assert resident(0, data(3)).train.inputs.device.type == "meta"
    large = data(3)
    assert resident(1, large) is large
    assert resident(2, data(1)).train.inputs.device.type == "meta"
    assert resident(0, data(3)).train.inputs.device.type == "meta"
