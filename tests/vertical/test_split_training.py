"""Training over parties is training of the whole network on joined data."""

from pathlib import Path

import pytest
import torch
from parties import SMALL, joined_training, metrics_of, parts_of, run_parties_in, summary_of

pytestmark = pytest.mark.slow  # whole federations

TWO = """'partition.parties={a:["mean *","worst *"],b:"* error"}' vertical.label_party=b"""
FOUR = """'partition.parties={a:"mean *",b:"* error",c:["worst r*","worst t*","worst p*"],d:"worst [!rtp]*"}'"""
FOUR += " vertical.label_party=c"


@pytest.mark.parametrize(
    "options",
    [
        "vertical.fusion.masked=false",
        "vertical.fusion=concat",
        f"vertical.fusion=concat {TWO}",
        f"vertical.fusion.masked=false {FOUR}",
        "vertical.fusion.masked=false optimizer.momentum=0.9",
        "vertical.fusion.masked=false vertical.top=null vertical.embedding=2 model=logistic_regression",
    ],
)
def test_ten_steps_give_the_weights_of_the_pooled_split_model(options: str, tmp_path: Path) -> None:
    line = f"{SMALL} {options}".replace("model.hidden=[5]", "") if "logistic" in options else f"{SMALL} {options}"
    line = f"{line} train.batch_size=100 train.local_epochs=2"  # ten steps of 455 entities
    parts = parts_of(run_parties_in(tmp_path / "run", line))
    expected = joined_training(line, epochs=2)
    assert parts.keys() == expected.keys()
    for name, state in parts.items():
        assert state.keys() == expected[name].keys()
        for key, value in state.items():
            assert torch.allclose(value, expected[name][key], rtol=0, atol=1e-6), f"{name} {key}"


def test_masked_sum_is_within_its_resolution(tmp_path: Path) -> None:
    masked, plain = (
        parts_of(run_parties_in(tmp_path / flag, f"{SMALL} vertical.fusion.masked={flag}"))
        for flag in ("true", "false")
    )
    for name, state in masked.items():
        for key, value in state.items():
            assert torch.allclose(value, plain[name][key], atol=1e-5), f"{name} {key}"


def test_the_order_and_place_of_parties_changes_nothing(tmp_path: Path) -> None:
    one = summary_of(run_parties_in(tmp_path / "one", SMALL, num_nodes=1))
    three = summary_of(run_parties_in(tmp_path / "three", SMALL, num_nodes=3, shuffle=1))
    assert one["model_sha256"] == three["model_sha256"]
    assert one["test_loss"] == three["test_loss"]
    assert one["supernodes"] == 1
    assert three["supernodes"] == 3
    assert one["entities"] == {"train": 455, "held_out": 114}
    assert {name: found["matched"] for name, found in one["parties"].items()} == dict.fromkeys(one["parties"], 569)
    lines = metrics_of(tmp_path / "one")
    assert [line["round"] for line in lines] == [0, 1]
    assert lines[1]["test_accuracy"] > 0.75 > lines[0]["test_accuracy"]
    assert lines[1]["replied"] == 3


def test_local_steps_are_steps_on_the_same_exchange(tmp_path: Path) -> None:
    once = summary_of(run_parties_in(tmp_path / "once", SMALL))
    thrice = summary_of(run_parties_in(tmp_path / "thrice", f"{SMALL} vertical.local_steps=3"))
    assert once["bytes_up"] == thrice["bytes_up"]
    assert thrice["test_loss"] < once["test_loss"]


def test_a_label_party_without_columns_trains(tmp_path: Path) -> None:
    """All columns are with others, so only the top model is the label party's."""
    line = f"""{SMALL} 'partition.parties={{a:[],b:"mean *",c:["* error","worst *"]}}' vertical.label_party=a"""
    found = summary_of(run_parties_in(tmp_path / "run", line))
    assert found["parties"]["a"]["columns"] == 0
    assert found["test_accuracy"] > 0.8
