"""The default federation through every door, judged by Flower's status and by the files it leaves."""

import json
from pathlib import Path

import pytest
from commands import Finished, Flower, run_script
from in_process import run_in_process

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def default(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """scripts/run.py with the defaults, on two SuperNodes."""
    return run_script("run.num_supernodes=2", cwd=tmp_path_factory.mktemp("default"))


def test_the_default_run_learns(default: Finished) -> None:
    assert default.code == 0, default.output
    assert default.summary["status"] == "finished"
    assert default.summary["clients"] == 20
    assert default.summary["test_accuracy"] >= 0.95
    assert "test_accuracy" in default.output
    assert str(default.run_dir / "report.html") in default.output.replace("\n", "")
    assert (default.run_dir / "report.html").exists()


def test_it_is_close_to_training_on_the_pooled_data(default: Finished, tmp_path: Path) -> None:
    directory = run_in_process(tmp_path / "run", "experiment=pooled")
    pooled = json.loads((directory / "summary.json").read_text())
    assert pooled["clients"] == 1
    assert abs(pooled["test_accuracy"] - default.summary["test_accuracy"]) <= 0.02


def test_secure_aggregation_costs_no_accuracy(default: Finished, tmp_path: Path) -> None:
    secure = run_script("secure_aggregation=secaggplus", "run.num_supernodes=2", cwd=tmp_path)
    assert secure.code == 0, secure.output
    assert (secure.summary["rounds"], secure.summary["rejected"]) == (60, 0)
    assert abs(secure.summary["test_accuracy"] - default.summary["test_accuracy"]) <= 0.01


def test_nor_do_sums_through_a_helper(default: Finished, flower: Flower, tmp_path: Path) -> None:
    """By `flwr run`, as Flower users start it: of three SuperNodes the last one plays the helper."""
    overrides = f"secure_aggregation=helper run.output_dir={tmp_path / 'run'}"
    output, status = flower.run(overrides, supernodes=3)
    assert status == "finished:completed", output
    found = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (found["rounds"], found["rejected"], found["supernodes"]) == (60, 0, 2)
    assert abs(found["test_accuracy"] - default.summary["test_accuracy"]) <= 0.01


def test_flwr_run_gives_the_same_model(flower: Flower, tmp_path: Path) -> None:
    few = "federation.num_rounds=3"
    output, status = flower.run(f"{few} run.output_dir={tmp_path / 'run'}", supernodes=4)
    assert status == "finished:completed", output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    alone = json.loads((run_in_process(tmp_path / "alone", few, num_nodes=3) / "summary.json").read_text())
    assert summary["supernodes"] == 4
    assert summary["model_sha256"] == alone["model_sha256"]
    assert f"run_dir={tmp_path / 'run'}" in output
