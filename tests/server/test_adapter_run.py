"""Whole runs of language models with adapters: what is on the wire, who is refused, what comes out."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message
from in_process import InProcessGrid, run_in_process, run_on
from language_models import ADAPTED, CAUSAL, made_of
from safetensors.torch import load_file, save_file

from fedapp.config import compose
from fedapp.inference.export import examples_to_check
from fedapp.inference.export_adapters import export_adapters
from fedapp.inference.saved import load_run
from fedapp.learning.build import build_parts
from fedapp.models.shared_state import shared_state
from fedapp.wire.records import tensor_bytes

pytestmark = pytest.mark.slow

FEW = "federation.num_clients=4 federation.num_rounds=2"
RUNS = {"causal_lm": f"{CAUSAL} {FEW}", "text_encoder": f"{ADAPTED} {FEW}"}


def summary(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "summary.json").read_text()))


@pytest.fixture(scope="module", params=list(RUNS))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, InProcessGrid]:
    overrides = RUNS[request.param]
    grid = InProcessGrid(overrides, 2)
    return overrides, run_on(grid, tmp_path_factory.mktemp(request.param) / "run", overrides), grid


def parts_of(overrides: str) -> Any:
    return build_parts(compose(shlex.split(overrides)))


def test_only_adapters_and_the_head_are_on_the_wire(run: tuple[str, Path, InProcessGrid]) -> None:
    overrides, directory, grid = run
    parts = parts_of(overrides)
    adapters = shared_state(parts.model)
    assert all("lora_" in name or name.startswith("net.head.") for name in adapters)
    size = sum(value.numel() * value.element_size() for value in adapters.values())
    answered = [message for message in grid.received if message.metadata.message_type == "train"]
    assert answered
    for message in answered:  # one client's update; a sum of several has eight bytes a value
        names = {name for record in message.content.array_records.values() for name in record}
        assert len(names) == len(adapters)
        assert tensor_bytes(message.content) <= 2 * size + 200 * len(adapters)
    found = summary(directory)
    assert found["parameters_trained"] * 4 == size
    assert found["parameters"] > 10 * found["parameters_trained"]


def test_an_update_of_one_client_has_the_bytes_of_its_adapters(
    run: tuple[str, Path, InProcessGrid], tmp_path: Path
) -> None:
    overrides = f"{run[0]} federation.num_clients=2 federation.num_rounds=1 federation.fraction_train=1.0"
    grid = InProcessGrid(overrides, 2)
    run_on(grid, tmp_path / "run", overrides)
    adapters = shared_state(parts_of(overrides).model)
    size = sum(value.numel() * 4 for value in adapters.values())
    answered = [message for message in grid.received if message.metadata.message_type == "train"]
    assert len(answered) == 2
    for message in answered:  # each array has a header of numpy's, 128 bytes
        assert tensor_bytes(message.content) == size + 128 * len(adapters)


def test_a_supernode_with_another_base_model_is_left_out_by_name(
    run: tuple[str, Path, InProcessGrid], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own preflight report says another digest as soon as one weight of its base model differs."""
    overrides = run[0]
    here = parts_of(overrides).backbone
    other = parts_of(overrides)
    frozen = next(p for p in other.model.parameters() if not p.requires_grad)
    with torch.no_grad():
        frozen.view(-1)[0] += 1e-6
    assert other.backbone != here

    def other_weights(reply: Message) -> Message:
        if reply.metadata.message_type == "query" and reply.metadata.src_node_id == 101:
            reply.content.config_records["config"]["backbone"] = other.backbone
        return reply

    grid = InProcessGrid(overrides, 2, tamper=other_weights)
    found = summary(run_on(grid, tmp_path / "run", overrides))
    assert "its frozen part of the model is another one" in found["faults"]["SuperNode 101"]
    assert found["clients"] == 2


def test_a_resumed_run_ends_with_the_same_model(run: tuple[str, Path, InProcessGrid], tmp_path: Path) -> None:
    overrides, directory, _ = run
    half = run_in_process(tmp_path / "half", overrides.replace("num_rounds=2", "num_rounds=1"))
    newest = sorted((half / "checkpoint").glob("*.safetensors"))[-1]
    assert all("lora_" in name or "head" in name for name in load_file(newest) if name.startswith("model/"))
    whole = run_in_process(half, f"{overrides} run.resume=auto")
    assert summary(whole)["model_sha256"] == summary(directory)["model_sha256"]


def test_the_saved_model_needs_no_files_of_its_base(run: tuple[str, Path, InProcessGrid]) -> None:
    overrides, directory, _ = run
    saved, parts = load_run(directory), parts_of(overrides)
    untrained = parts.whole.state_dict()
    state = load_file(directory / "model.safetensors")
    changed = {name for name, value in state.items() if not torch.equal(value, untrained[name])}
    assert changed == set(shared_state(parts.model))
    test = parts.source.test()
    assert test is not None
    judged = parts.task.evaluate(saved.predictor.model, test)
    assert judged is not None
    assert judged.loss == pytest.approx(summary(directory)["test_loss"], abs=1e-4)


@pytest.mark.parametrize("merged", [False, True], ids=["adapters", "merged"])
def test_what_is_exported_says_what_the_run_says(
    run: tuple[str, Path, InProcessGrid], tmp_path: Path, merged: bool
) -> None:
    _, directory, _ = run
    saved = load_run(directory)
    inputs, _ = examples_to_check(saved, ())
    folder = tmp_path / "exported"
    assert export_adapters(saved, folder, inputs, merged=merged) <= 1e-5
    names = {"config.json", "model.safetensors"} if merged else {"adapter_config.json", "adapter_model.safetensors"}
    found = {path.name for path in folder.iterdir()}
    assert names <= found
    assert ("head.safetensors" in found) == ("net.head.weight" in load_file(directory / "model.safetensors"))
    assert not any(path.name.startswith(".exported") for path in tmp_path.iterdir())


def test_an_export_that_says_something_else_is_not_kept(
    run: tuple[str, Path, InProcessGrid], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedapp.inference import export_adapters as module

    def others(state: dict[str, Any], path: Path) -> None:
        save_file({key: value + 1.0 if "lora_B" in key else value for key, value in state.items()}, path)

    monkeypatch.setattr(module, "save_file", others)
    saved = load_run(run[1])
    inputs, _ = examples_to_check(saved, ())
    assert export_adapters(saved, tmp_path / "exported", inputs, merged=False) > 1e-5
    assert not list(tmp_path.iterdir())


def test_the_export_command(run: tuple[str, Path, InProcessGrid], tmp_path: Path) -> None:
    script = Path(__file__).resolve().parents[2] / "scripts/export.py"
    command = [sys.executable, str(script), str(run[1]), "--format", "peft", "--output", str(tmp_path / "a")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"peft: {tmp_path / 'a'}" in done.stdout
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "exists; give the name of a new folder" in again.stderr


def test_another_architecture_runs_too(tmp_path: Path) -> None:
    overrides = made_of(RUNS["causal_lm"], "llama").replace("num_rounds=2", "num_rounds=1")
    found = summary(run_in_process(tmp_path / "run", overrides))
    assert found["status"] == "finished"


def test_training_teaches_the_adapters_something(tmp_path: Path) -> None:
    adam = "optimizer=adamw optimizer.lr=0.01 federation.fraction_train=1.0 train.batch_size=4"
    overrides = f"{ADAPTED} {adam} federation.num_clients=10 federation.num_rounds=4"
    directory = run_in_process(tmp_path / "run", overrides)
    rounds = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert rounds[4]["train_loss"] < rounds[1]["train_loss"]
