"""RecordDicts as bytes by Flower's own serialisation; without it, messages are handled in their own process."""

import os
import tempfile
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from in_process import make_context

from fedapp.client.worker.ask import FOLDER, ask
from fedapp.flower import serde


def test_flower_has_the_names(expect_names: Callable[..., None]) -> None:
    expect_names("serde.py", serde.SERDE, "recorddict_to_proto", "recorddict_from_proto")
    expect_names("serde.py", serde.PROTO, "RecordDict")
    assert serde.can_serialise()


def test_what_goes_through_is_the_same() -> None:
    record = RecordDict(
        {
            "arrays": ArrayRecord({"weight": Array(np.arange(6.0).reshape(2, 3))}),
            "config": ConfigRecord({"name": "x", "flags": [True, False], "blob": b"\0\xff"}),
            "metrics": MetricRecord({"loss": 0.5, "counts": [1, 2]}),
        }
    )
    found = serde.from_bytes(serde.to_bytes(record))
    assert found == record
    assert np.array_equal(found["arrays"]["weight"].numpy(), np.arange(6.0).reshape(2, 3))  # type: ignore[index]


def test_other_bytes_are_a_value_error() -> None:
    with pytest.raises(ValueError, match=r".+"):
        serde.from_bytes(b"\xff" * 64)


@pytest.mark.parametrize("name", ["recorddict_to_proto", "recorddict_from_proto"])
def test_without_it_no_worker_is_asked_for(
    name: str, monkeypatch: pytest.MonkeyPatch, warned: Callable[[], list[str]]
) -> None:
    monkeypatch.delattr(f"{serde.SERDE}.{name}")
    with tempfile.TemporaryDirectory(prefix="fa-") as folder:
        monkeypatch.setenv(FOLDER, folder)
        for _ in range(2):
            assert ask("query", RecordDict(), make_context(1, {}, "")) is None
        assert not os.listdir(folder)  # no start request, which nothing could use
    assert len(warned()) == 1
    assert name in warned()[0]
