"""Clients that drop out at random, and one that is hostile: on the default task, for as long as it takes."""

import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import run_in_process
from safetensors.torch import load_file
from torch import Tensor

from fedapp.client.site import Site
from fedapp.common.errors import FederationError
from fedapp.wire.instruction import Instruction
from fedapp.wire.reply import ClientReport

pytestmark = pytest.mark.slow

TEN = "federation.num_clients=10 federation.fraction_train=1 federation.num_rounds=20 optimizer.lr=0.1 partition=iid"
HOSTILE = 3
ROBUST = ("median", "trimmed_mean", "multi_krum")
train = Site.train
Trained = tuple[ClientReport, dict[str, Tensor]]


def accuracy(directory: Path) -> float:
    return float(json.loads((directory / "summary.json").read_text())["test_accuracy"])


def attack(site: Site, client: int, *arguments: Any) -> Trained:
    """-10 times the update, from one client of ten."""
    report, update = train(site, client, *arguments)
    return report, {key: -10 * value if client == HOSTILE else value for key, value in update.items()}


def drop_out(site: Site, client: int, instruction: Instruction, *arguments: Any) -> Trained:
    if random.Random(f"{client}/{instruction.server_round}").random() < 0.3:
        return ClientReport(client, rejected="dropped out"), {}
    return train(site, client, instruction, *arguments)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> float:
    return accuracy(run_in_process(tmp_path_factory.mktemp("clean") / "run", TEN))


@pytest.mark.parametrize("strategy", ROBUST)
def test_robust_rules_withstand_one_hostile_client_of_ten(
    clean: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    monkeypatch.setattr(Site, "train", attack)
    directory = run_in_process(tmp_path / "run", f"{TEN} strategy={strategy}")
    assert accuracy(directory) >= clean - 0.03
    if strategy == "multi_krum":
        rows = [json.loads(line) for line in (directory / "clients.jsonl").read_text().splitlines()]
        mine = [row for row in rows if row["client"] == HOSTILE and "phase" not in row]
        assert all("too far from the others" in row["unused"] for row in mine)


def test_plain_averaging_does_not(clean: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It diverges, until the clients' updates from such a model are not finite any more and the run ends."""
    monkeypatch.setattr(Site, "train", attack)
    with suppress(FederationError):
        run_in_process(tmp_path / "run", TEN)
    assert accuracy(tmp_path / "run") < clean - 0.03


def test_with_30_percent_dropping_out_the_default_task_still_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Site, "train", drop_out)
    directory = run_in_process(tmp_path / "run", "")
    found = json.loads((directory / "summary.json").read_text())
    assert found["status"] == "finished"
    assert 0.2 < found["rejected"] / (60 * 10) < 0.4
    assert found["test_accuracy"] >= 0.95


def test_too_few_for_several_rounds_end_the_run_with_the_last_good_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = "model=logistic_regression federation.num_clients=6"

    def fail_from_round_4(site: Site, client: int, instruction: Instruction, *arguments: Any) -> Trained:
        if instruction.server_round >= 4:
            return ClientReport(client, rejected="dropped out"), {}
        return train(site, client, instruction, *arguments)

    good = run_in_process(tmp_path / "good", f"{small} federation.num_rounds=3")
    monkeypatch.setattr(Site, "train", fail_from_round_4)
    with pytest.raises(FederationError, match="3 rounds in a row had fewer than"):
        run_in_process(tmp_path / "run", f"{small} federation.num_rounds=30")
    found = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (found["status"], found["rounds"]) == ("failed", 6)
    kept, expected = load_file(tmp_path / "run" / "model.safetensors"), load_file(good / "model.safetensors")
    assert all(torch.equal(kept[key], expected[key]) for key in expected)
