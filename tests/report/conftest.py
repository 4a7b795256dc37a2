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
  _target_: fedapp.data.sources.embedded.Digits
model:
  _target_: fedapp.models.cnn.cnn
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
        line["val_mae"] = 9 * (1 - line.pop("val_accuracy"))
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
    main = "mae" if kind == "regression" else "accuracy"
    for key in ("train_loss", "val_loss", f"val_{main}"):
        values = [client[key] for client in trained if client[key] is not None]
        line[key] = sum(values) / len(values) if values else None
    return line | _over_clients(f"val_{main}", [client[f"val_{main}"] for client in trained])


def _over_clients(name: str, values: list[float | None]) -> dict[str, float | None]:
    known = sorted((value for value in values if value is not None), reverse=name.endswith("mae"))
    worst = known[: math.ceil(len(known) / 10)]
    return {
        f"{name}_mean": sum(known) / len(known) if known else None,
        f"{name}_worst_decile": sum(worst) / len(worst) if worst else None,
    }


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
            lines.append(line | {"round": rounds, "phase": "final", "weight": None, "steps": 0, "train_loss": None})
    summary = {key: value for key, value in metrics[-1].items() if key.startswith("test_")}
    main = "val_mae" if kind == "regression" else "val_accuracy"
    summary |= _over_clients(f"final_{main}", [line[main] for line in lines if line.get("phase")])
    summary |= {
        "status": "finished",
        "stop_reason": "all rounds done",
        "rounds": rounds,
        "clients": clients,
        "rejected": sum(bool(line.get("rejected")) for line in lines),
        "bytes_up": sum(line.get("bytes_up", 0) for line in metrics),
        "bytes_down": sum(line.get("bytes_down", 0) for line in metrics),
        "seconds": sum(line.get("seconds", 0) for line in metrics),
        "epsilon_max": max((line["epsilon"] for line in lines if "epsilon" in line), default=None),
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
