"""Run directories made up for the report's tests: the files a run of that shape would leave behind."""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CONFIG = """\
task:
  name: horizontal
data:
  _target_: fedapp.data.digits.Digits
  name: digits
model:
  _target_: fedapp.models.cnn.CNN
  name: cnn
partition:
  _target_: flwr_datasets.partitioner.DirichletPartitioner
  alpha: 0.3
optimizer:
  _target_: torch.optim.SGD
  lr: 0.1
strategy:
  weighting: num_examples
privacy:
  name: none
  target_epsilon: 8.0
federation:
  num_clients: 20
  num_rounds: 20
run:
  seed: 0
"""
REASONS = ("update norm 41.7 is above strategy.max_update_norm=25", "late: no reply within federation.round_timeout")


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _curve(index: int, chance: random.Random, ceiling: float = 0.96) -> float:
    return ceiling - 0.85 * math.exp(-index / 4) + chance.uniform(-0.012, 0.012)


def _client_line(index: int, client: int, chance: random.Random, *, reject: float, kind: str) -> dict[str, Any]:
    skill = random.Random(client).uniform(-0.16, 0.04)
    score = min(1.0, max(0.0, _curve(index - 1, chance) + skill))
    line = {
        "round": index,
        "client": client,
        "num_examples": 30 + 7 * (client % 13),
        "weight": 1.0,
        "steps": 4,
        "seconds": 0.2,
        "rejected": chance.choice(REASONS) if chance.random() < reject else None,
        "train_loss": 2 * (1 - score),
        "val_loss": 2.3 * (1 - score),
        "val_accuracy": score,
        "val_examples": 8,
    }
    if kind == "dp":
        line |= {"train_loss": None, "val_loss": None, "val_accuracy": None, "val_examples": None}
        line |= {"epsilon": 0.9 * math.sqrt(index) + client / 50, "delta": 1e-5, "noise_multiplier": 1.0}
    elif kind == "regression":
        line["val_accuracy"] = None
    return line


def _round_line(index: int, trained: list[dict[str, Any]], chance: random.Random, kind: str) -> dict[str, Any]:
    score = _curve(index, chance)
    test: dict[str, Any] = {"test_loss": 2.3 * (1 - score), "test_accuracy": score}
    if kind == "regression":
        test = {"test_loss": 2.3 * (1 - score), "test_mae": 9 * (1 - score)}
    if not trained:
        return {"round": index, **test}
    good = [line for line in trained if not line["rejected"]]
    waiting, aggregating = 0.9 + chance.random() / 3, 0.06
    line = {"round": index, "seconds": waiting + aggregating + 0.25, "seconds_clients": waiting}
    line |= {"seconds_aggregate": aggregating, "seconds_evaluate": 0.15, "seconds_other": 0.1, **test}
    line |= {"cohort": len(trained), "replied": len(trained), "rejected": len(trained) - len(good)}
    line |= {"bytes_up": 151_000 * len(trained), "bytes_down": 150_000 * len(trained)}
    for key in ("train_loss", "val_loss", "val_accuracy"):
        values = [client[key] for client in good if client[key] is not None]
        line[key] = sum(values) / len(values) if values else None
    scores = sorted(client["val_accuracy"] for client in good if client["val_accuracy"] is not None)
    line["val_accuracy_mean"] = sum(scores) / len(scores) if scores else None
    line["val_accuracy_worst_decile"] = scores[0] if scores else None
    return line


def make_run(
    path: Path, *, clients: int = 20, rounds: int = 20, cohort: int = 10, reject: float = 0.06, kind: str = "plain"
) -> Path:
    """A run directory at `path`; `kind`: plain (classification), regression, or dp."""
    chance = random.Random(0)
    path.mkdir(parents=True, exist_ok=True)
    metrics, lines = [_round_line(0, [], chance, kind)], []
    for index in range(1, rounds + 1):
        asked = sorted(chance.sample(range(clients), min(cohort, clients)))
        trained = [_client_line(index, client, chance, reject=reject, kind=kind) for client in asked]
        lines += trained
        metrics.append(_round_line(index, trained, chance, kind))
    if kind != "dp":
        for client in range(clients):
            line = _client_line(rounds + 1, client, chance, reject=0, kind=kind)
            keys = ("client", "num_examples", "val_accuracy", "val_loss", "val_examples")
            lines.append({"round": rounds, "phase": "final"} | {key: line[key] for key in keys})
    summary = {key: value for key, value in metrics[-1].items() if key.startswith("test_")}
    scores = sorted(line["val_accuracy"] for line in lines if line.get("phase") and line["val_accuracy"] is not None)
    worst = scores[: math.ceil(len(scores) / 10)]
    summary |= {
        "status": "completed",
        "stop_reason": f"all {rounds} rounds done",
        "rounds": rounds,
        "clients": clients,
        "rejected": sum(bool(line.get("rejected")) for line in lines),
        "bytes_up": sum(line.get("bytes_up", 0) for line in metrics),
        "bytes_down": sum(line.get("bytes_down", 0) for line in metrics),
        "seconds": sum(line.get("seconds", 0) for line in metrics),
        "epsilon_max": max((line["epsilon"] for line in lines if "epsilon" in line), default=None),
        "final_val_accuracy_mean": sum(scores) / len(scores) if scores else None,
        "final_val_accuracy_worst_decile": sum(worst) / len(worst) if worst else None,
        "parameters": 37_610,
        "model_sha256": "5d41402abc4b2a76b9719d911017c592" * 2,
        "versions": {"fedapp": "0.1.0", "flwr": "1.41.0", "torch": "2.15.0", "python": "3.11.7"},
    }
    (path / "config.yaml").write_text(CONFIG, encoding="utf-8")
    write_lines(path / "metrics.jsonl", metrics)
    write_lines(path / "clients.jsonl", lines)
    (path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return path


@pytest.fixture
def run_at(tmp_path: Path) -> Callable[..., Path]:
    """Makes a run directory: `run_at(rounds=1, kind="dp")`; see `make_run`."""
    return lambda name="run", **options: make_run(tmp_path / name, **options)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 clients, 20 rounds, some rejections. Read-only, so that tests can share it."""
    return make_run(tmp_path_factory.mktemp("sample") / "run")
