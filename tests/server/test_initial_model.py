"""A run that begins with the model of an earlier one."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from every_task import HEAD
from flwr.app import Message
from in_process import InProcessGrid, run_in_process, run_on
from safetensors.torch import load_file, save_file

from fedapp.common.errors import ConfigError
from fedapp.wire.records import arrays_to_state

pytestmark = pytest.mark.slow

RUN = "model=mlp federation.num_clients=4 federation.num_rounds=2"
FROZEN = f"{HEAD} federation.num_clients=20 federation.fraction_train=0.1 federation.num_rounds=1"


def rows(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_in_process(tmp_path_factory.mktemp("first") / "run", RUN)


def test_it_goes_out_with_round_one(first: Path, tmp_path: Path) -> None:
    overrides = f"{RUN} run.initial_model={first} run.seed=7"
    grid = InProcessGrid(overrides, 2)
    second = run_on(grid, tmp_path / "run", overrides)
    sent: Message = next(message for message in grid.sent if message.metadata.message_type == "train")
    received, expected = arrays_to_state(sent.content.array_records["arrays"]), load_file(first / "model.safetensors")
    assert all(torch.equal(received[name], expected[name]) for name in expected)
    assert rows(second)[0]["test_accuracy"] == rows(first)[-1]["test_accuracy"]


def test_scaling_that_it_has_learnt_with_is_kept(tmp_path: Path) -> None:
    table = "data=breast_cancer model=mlp federation.num_clients=3 federation.num_rounds=1"
    first = run_in_process(tmp_path / "first", table)
    second = run_in_process(tmp_path / "second", f"{table} run.initial_model={first} data.split_seed=3 run.seed=1")
    offset = [load_file(run / "model.safetensors")["input.offset"] for run in (first, second)]
    other = run_in_process(tmp_path / "third", f"{table} data.split_seed=3 run.seed=1")
    assert torch.equal(offset[0], offset[1])
    assert not torch.equal(offset[0], load_file(other / "model.safetensors")["input.offset"])


def test_a_resumed_run_needs_it_no_more(first: Path, tmp_path: Path) -> None:
    initial = shutil.copytree(first, tmp_path / "initial")
    go = f"{RUN} run.initial_model={initial} run.output_dir={tmp_path}/run run.resume=auto"
    run_in_process(tmp_path / "run", go)
    shutil.rmtree(initial)
    run_in_process(tmp_path / "run", go.replace("num_rounds=2", "num_rounds=3"))
    assert rows(tmp_path / "run")[-1]["round"] == 3


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda state: state | {"net.3.weight": torch.zeros(2, 64)}, ["another network", "net.3.weight (2, 64), not"]),
        (lambda state: {k: v for k, v in state.items() if k != "net.3.bias"}, ["lacks net.3.bias"]),
    ],
)
def test_a_model_of_another_form_is_refused(first: Path, tmp_path: Path, change: Any, parts: list[str]) -> None:
    initial = tmp_path / "initial"
    initial.mkdir()
    save_file(change(load_file(first / "model.safetensors")), initial / "model.safetensors")
    with pytest.raises(ConfigError) as caught:
        run_in_process(tmp_path / "run", f"{RUN} run.initial_model={initial}")
    assert all(part in str(caught.value) for part in [f"run.initial_model={initial}", *parts])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("value", "part"), [("outputs/x", "must be an absolute path"), ("/nowhere", "holds no model.safetensors")]
)
def test_what_is_no_run_is_refused(tmp_path: Path, value: str, part: str) -> None:
    with pytest.raises(ConfigError, match=f"run.initial_model={value}: {part}"):
        run_in_process(tmp_path / "run", f"{RUN} run.initial_model={value}")


def test_a_damaged_or_pickled_file_is_refused(first: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((first / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(ConfigError, match=r"run.initial_model=.*: is no whole file of weights"):
        run_in_process(tmp_path / "run", f"{RUN} run.initial_model={tmp_path}")
    torch.save({"net.1.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=r"run.initial_model=.*: is no whole file of weights"):
        run_in_process(tmp_path / "run", f"{RUN} run.initial_model={tmp_path}")


def test_what_is_frozen_must_be_what_clients_have(tmp_path: Path) -> None:
    first = run_in_process(tmp_path / "first", FROZEN)
    go = f"run.initial_model={first}"
    run_in_process(tmp_path / "alike", f"{FROZEN} {go}")
    with pytest.raises(ConfigError, match=r"is frozen in this run \(model.trainable=head\) differs"):
        run_in_process(tmp_path / "other", f"{FROZEN} {go} run.seed=3")
