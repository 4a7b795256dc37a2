"""The benchmark runs, small, and its arms do the same work; how long they take is nobody's test."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parents[1] / "scripts"


def command(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [*sys.path])  # the script adds to it
    spec = importlib.util.spec_from_file_location("bench_script", SCRIPTS / "bench.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> list[dict[str, object]]:
    path = tmp_path / "figures.json"
    options = ["--repetitions", "1", "--steps", "2", "--json", str(path)]
    assert command(monkeypatch).main([name, *options]) == 0
    return list(json.loads(path.read_text())["rows"])


def test_dp_sgd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = figures(monkeypatch, tmp_path, "dp-sgd")
    assert {(row["model"], row["batch"]) for row in rows} == {(m, b) for m in ("2NN", "CNN") for b in (10, 64)}
    for row in rows:
        assert set(row["to_plain"]) == {"hooks", "functorch", "ew", "ghost"}  # type: ignore[call-overload]
        assert row["auto"] in ("ew", "ghost")
        assert row["auto_to_best"] >= 1.0  # type: ignore[operator]


def test_secure_aggregation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every round checks its sum; what a client sends is within what the paper's protocol sends."""
    command(monkeypatch)
    from benchmarks import secure_aggregation

    monkeypatch.setattr(secure_aggregation, "PARAMETERS", 1000)
    monkeypatch.setattr(secure_aggregation, "COHORTS", ((None, 10), (4, 10), (32, 100)))
    rows = figures(monkeypatch, tmp_path, "secagg")
    assert [(row["cohort"], row["neighbours"]) for row in rows] == [(10, 9), (10, 4), (100, 32)]
    assert all(1 < row["bytes_ratio"] < 1.3 for row in rows)  # type: ignore[operator]


def test_ledger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = figures(monkeypatch, tmp_path, "ledger")
    assert len({(row["model"], row["accountant"], row["where"]) for row in rows}) == 8
    assert all(0 < row["share"] < 1 for row in rows)  # type: ignore[operator]


def test_the_benchmarks_arms_train_the_same_model(monkeypatch: pytest.MonkeyPatch) -> None:
    command(monkeypatch)
    import torch
    from benchmarks.dp_sgd import MODES, private_training
    from benchmarks.models import MODELS, examples

    states = []
    for mode in MODES:
        model = MODELS["2NN"]()
        assert private_training(mode, batch=10, steps=3)(model, examples(30), seed=(0,)).steps == 3
        states.append(model.state_dict())
    for state in states[1:]:
        assert all(torch.allclose(state[key], states[0][key], rtol=0, atol=1e-5) for key in state)


@pytest.mark.parametrize("arguments", [["speed"], ["dp-sgd", "--steps", "0"]])
def test_nonsense_is_refused(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        command(monkeypatch).main(arguments)


def test_features(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = figures(monkeypatch, tmp_path, "features")
    assert [row["features"] for row in rows] == ["computed", "from a file", "from memory"]
    assert len({row["loss"] for row in rows}) == 1  # every arm trains on the same
    assert rows[0]["times_faster"] == 1.0
