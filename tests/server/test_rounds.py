"""Whole runs in this process: what they leave behind, when they stop, and that nothing but the config matters."""

import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from every_task import EVERY_TASK, SLOW_TASKS
from flwr.app import Message
from in_process import InProcessGrid, run_in_process
from safetensors.torch import load_file

from fedapp.aggregation.protocol import protocol_of
from fedapp.common.errors import ConfigError, FederationError
from fedapp.common.state_digest import state_sha256
from fedapp.config import Config, compose
from fedapp.learning.build import Parts, build_parts
from fedapp.models.shared_state import load_shared, shared_state
from fedapp.server.build import build_strategy
from fedapp.server.exchange import Exchange
from fedapp.server.population.joining import AdmissionRules
from fedapp.server.population.preflight import preflight
from fedapp.server.population.roster import Roster
from fedapp.server.strategy import WeightedFedAvg
from fedapp.updates.steps import steps_of
from fedapp.wire.instruction import stage_of
from fedapp.wire.model import GlobalModel
from fedapp.wire.records import arrays_to_state, state_to_arrays

SMALL = "federation.num_rounds=2 federation.num_clients=6 model=logistic_regression"
TASKS = {
    "horizontal": SMALL,
    **{
        name: f"federation.num_rounds=2 federation.num_clients=20 federation.fraction_train=0.2 {EVERY_TASK[name]}"
        for name in SLOW_TASKS
    },
}
every_task = pytest.mark.parametrize(
    "task", ["horizontal", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_TASKS)]
)


def summary(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "summary.json").read_text()))


def lines(directory: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / name).read_text().splitlines()]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Of each task, a run on two SuperNodes."""

    @cache
    def run_of(task: str) -> Path:
        return run_in_process(tmp_path_factory.mktemp("run") / "run", TASKS[task], report=task == "horizontal")

    return run_of


@pytest.fixture(scope="module")
def plain(runs: Callable[[str], Path]) -> Path:
    return runs("horizontal")


def test_the_run_directory_holds_what_it_promises(plain: Path) -> None:
    found = summary(plain)
    promised = "status stop_reason rounds test_accuracy test_loss clients rejected bytes_up bytes_down seconds"
    assert {*promised.split(), "epsilon_max", "model_sha256", "versions"} <= found.keys()
    assert found["status"] == "finished"
    assert found["rounds"] == 2
    assert found["model_sha256"] == state_sha256(load_file(plain / "model.safetensors"))
    rounds = lines(plain, "metrics.jsonl")
    assert [line["round"] for line in rounds] == [0, 1, 2]
    promised = "round seconds test_accuracy test_loss train_loss cohort replied rejected bytes_up bytes_down"
    assert set(promised.split()) <= rounds[-1].keys()
    assert rounds[-1]["test_accuracy"] == found["test_accuracy"]
    training = [row for row in lines(plain, "clients.jsonl") if "phase" not in row]
    promised = "round client num_examples weight steps seconds rejected"
    assert set(promised.split()) <= training[0].keys()
    assert sum(row["weight"] for row in training if row["round"] == 1) == pytest.approx(1.0, abs=1e-12)
    final = [row for row in lines(plain, "clients.jsonl") if row.get("phase") == "final"]
    assert [row["client"] for row in final] == list(range(6))
    assert (plain / "report.html").stat().st_size > 10_000
    assert any((plain / "tensorboard").iterdir())
    assert "num_clients: 6" in (plain / "config.yaml").read_text()


def test_weights_follow_the_numbers_of_examples(plain: Path) -> None:
    first = [row for row in lines(plain, "clients.jsonl") if row["round"] == 1 and "phase" not in row]
    total = sum(row["num_examples"] for row in first)
    assert total > 0
    for row in first:
        assert row["weight"] == pytest.approx(row["num_examples"] / total)


@every_task
@pytest.mark.parametrize(("nodes", "shuffle"), [(1, None), (2, 3), (4, 5), (6, 7)])
def test_same_model_for_any_number_of_supernodes_and_any_order(
    runs: Callable[[str], Path], tmp_path: Path, task: str, nodes: int, shuffle: int | None
) -> None:
    other = run_in_process(tmp_path / "run", TASKS[task], nodes, shuffle=shuffle)
    found, expected = summary(other), summary(runs(task))
    (final,) = {"final_val_accuracy_mean", "final_val_token_accuracy_mean"} & expected.keys()
    for name in ("model_sha256", "test_loss", final):
        assert found[name] == expected[name]


@every_task
def test_global_generators_change_nothing(runs: Callable[[str], Path], tmp_path: Path, task: str) -> None:
    random.seed(99)
    np.random.seed(99)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = run_in_process(tmp_path / "run", TASKS[task])
    assert summary(again)["model_sha256"] == summary(runs(task))["model_sha256"]
    assert torch.equal(torch.get_rng_state(), before)


@every_task
def test_what_clients_learn_changes_the_model(runs: Callable[[str], Path], task: str) -> None:
    config = compose(TASKS[task].split())
    initial = state_sha256(build_parts(config).whole.state_dict())
    assert summary(runs(task))["model_sha256"] not in (initial, None)
    assert summary(runs(task))["rejected"] == 0


def test_another_seed_gives_another_model(plain: Path, tmp_path: Path) -> None:
    other = run_in_process(tmp_path / "run", f"{SMALL} run.seed=1")
    assert summary(other)["model_sha256"] != summary(plain)["model_sha256"]


def strategy_on(grid: InProcessGrid, config: Config, parts: Parts) -> WeightedFedAvg:
    count = config.federation.num_clients
    rules = AdmissionRules(count, min_clients=2, wait_timeout=1, reply_timeout=9, backbone=parts.backbone)
    roster = Roster(preflight(Exchange(grid), rules))
    return build_strategy(config, parts, roster, protocol_of(config), steps_of(config))


@every_task
def test_one_message_a_supernode_and_round(task: str) -> None:
    config = compose(TASKS[task].split())
    grid, parts = InProcessGrid(TASKS[task], 2), build_parts(config)
    strategy = strategy_on(grid, config, parts)
    nodes = strategy.roster.nodes
    assert nodes == {client: 100 + client % 2 for client in range(config.federation.num_clients)}
    grid.sent.clear()
    cohort = strategy.choose(1, "")
    model, aggregate = strategy.train(
        cohort, GlobalModel(shared_state(parts.model)), lambda messages, _: Exchange(grid)(messages, 1)
    )
    assert model is not None
    assert [(m.metadata.message_type, stage_of(m.content)) for m in grid.sent] == [("train", "train")] * len(grid.sent)
    assert len(grid.sent) == len({nodes[client] for client in cohort.weights})
    assert [report.client for report in aggregate.replies.good] == sorted(cohort.weights)
    assert all(report.val_examples for report in aggregate.replies.good)


@every_task
def test_flowers_own_start_runs_this_strategy(runs: Callable[[str], Path], task: str) -> None:
    config = compose(TASKS[task].split())
    grid, parts = InProcessGrid(TASKS[task], 2), build_parts(config)
    result = strategy_on(grid, config, parts).start(grid, state_to_arrays(shared_state(parts.model)), num_rounds=2)
    load_shared(parts.model, arrays_to_state(result.arrays))
    assert state_sha256(parts.whole.state_dict()) == summary(runs(task))["model_sha256"]


def test_target_accuracy_ends_the_run(tmp_path: Path) -> None:
    found = summary(run_in_process(tmp_path / "run", f"{SMALL} federation.target_accuracy=0.05"))
    assert found["rounds"] == found["rounds_to_target"] == 1
    assert "target accuracy 0.05" in found["stop_reason"]


def test_patience_ends_the_run(tmp_path: Path) -> None:
    stuck = "federation.num_rounds=9 federation.patience=2 optimizer.lr=0.0 model=logistic_regression"
    found = summary(run_in_process(tmp_path / "run", stuck))
    assert found["rounds"] == 3
    assert "patience" in found["stop_reason"]


def test_without_test_data_the_clients_validation_data_decides(tmp_path: Path) -> None:
    stuck = "optimizer.lr=0.0 model=logistic_regression data.test_fraction=0 federation.fraction_train=1"
    found = summary(run_in_process(tmp_path / "run", f"{stuck} federation.num_rounds=9 federation.patience=2"))
    assert found["test_accuracy"] is None
    assert found["rounds"] == 3
    with pytest.raises(ConfigError, match=r"federation.patience.*train.val_fraction"):
        run_in_process(tmp_path / "other", f"{stuck} train.val_fraction=0 federation.patience=2")
    assert not (tmp_path / "other").exists()


def test_a_run_that_never_learnt_has_not_finished(tmp_path: Path) -> None:
    with pytest.raises(FederationError, match="the model is the initial one"):
        run_in_process(tmp_path / "run", f"{SMALL} optimizer.lr=1e30")
    found = summary(tmp_path / "run")
    assert (found["status"], found["rounds"], found["rejected"]) == ("failed", 2, 6)
    reasons = {row["rejected"] for row in lines(tmp_path / "run", "clients.jsonl")}
    assert any("value out of range" in str(reason) or "non-finite" in str(reason) for reason in reasons)


def test_rounds_without_good_replies_end_in_an_error_and_keep_the_model(tmp_path: Path) -> None:
    def silence(reply: Message) -> Message | None:
        return None if reply.metadata.message_type == "train" else reply

    overrides = f"{SMALL} federation.num_rounds=9 federation.max_failed_rounds=2 federation.round_timeout=0.1"
    with pytest.raises(FederationError, match="2 rounds in a row"):
        run_in_process(tmp_path / "run", overrides, tamper=silence)
    found = summary(tmp_path / "run")
    assert found["status"] == "failed"
    assert found["rounds"] == 2
    assert found["rejected"] in (5, 6)  # in round 2, those still busy are asked only as far as needed
    initial = build_parts(compose(overrides.split())).model.state_dict()
    assert found["model_sha256"] == state_sha256(initial)
    reasons = {row["rejected"] for row in lines(tmp_path / "run", "clients.jsonl")}
    assert reasons == {"no reply in time"}


def test_a_directory_that_holds_a_run_is_not_written_over(plain: Path) -> None:
    before = (plain / "metrics.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="already holds a run"):
        run_in_process(plain, SMALL)
    assert (plain / "metrics.jsonl").read_bytes() == before


def test_an_unwritable_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"run.output_dir=.*cannot be written"):
        run_in_process(tmp_path / "file" / "run", SMALL)


def test_proximal_term_keeps_clients_near_the_global_model(tmp_path: Path) -> None:
    def moved(overrides: str, name: str) -> float:
        directory = run_in_process(tmp_path / name, f"{overrides} federation.num_rounds=1")
        start = build_parts(compose(overrides.split())).model.state_dict()
        end = load_file(directory / "model.safetensors")
        return sum(float((end[key] - start[key]).square().sum()) for key in end)

    free = moved(SMALL, "free")
    held = moved(f"{SMALL} train.proximal_mu=5.0", "held")
    assert 0 < held < 0.9 * free


def test_regression_reports_its_own_metric(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    source = random.Random(0)
    rows = [(source.uniform(0, 1), source.uniform(900, 1100)) for _ in range(200)]
    table.write_text("a,b,y\n" + "".join(f"{a},{b},{2 * a + b / 100}\n" for a, b in rows))
    overrides = (
        f"data=csv data.path={table} data.label=y data.regression=true model=logistic_regression partition=iid"
        " federation.num_clients=4 federation.num_rounds=8 optimizer.lr=0.1"
    )
    found = summary(run_in_process(tmp_path / "run", overrides))
    first = lines(tmp_path / "run", "metrics.jsonl")[0]
    assert found["test_mae"] < 0.5 * first["test_mae"]
    assert "test_accuracy" not in found
    assert found["final_val_mae_mean"] > 0
