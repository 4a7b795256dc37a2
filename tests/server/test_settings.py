"""Every setting of a round changes what it says: one run each, beside one with the defaults."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message, RecordDict
from in_process import InProcessGrid, run_in_process
from torch import Tensor, nn

from fedapp.client.handlers import open_run
from fedapp.client.site import Site
from fedapp.client_app import app
from fedapp.common.state_digest import State
from fedapp.wire.instruction import Instruction
from fedapp.wire.reply import ClientReport

pytestmark = pytest.mark.slow  # whole federations

BASE = "federation.num_rounds=1 federation.num_clients=8 model=logistic_regression federation.final_evaluation=false"


def rows(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "clients.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return rows(run_in_process(tmp_path_factory.mktemp("base") / "run", BASE))


def changed(tmp_path: Path, overrides: str) -> list[dict[str, Any]]:
    return rows(run_in_process(tmp_path / "run", f"{BASE} {overrides}"))


def test_fraction_train(base: list[dict[str, Any]], tmp_path: Path) -> None:
    assert len(base) == 4
    assert len(changed(tmp_path, "federation.fraction_train=1")) == 8


def test_local_epochs_and_batch_size(base: list[dict[str, Any]], tmp_path: Path) -> None:
    tripled = changed(tmp_path, "train.local_epochs=3")
    assert [row["steps"] for row in tripled] == [3 * row["steps"] for row in base]
    small = changed(tmp_path / "small", "train.batch_size=4")
    assert all(abs(row["steps"] - row["num_examples"] / 4) <= 1 for row in small)


def test_val_fraction(base: list[dict[str, Any]], tmp_path: Path) -> None:
    half = changed(tmp_path, "train.val_fraction=0.5")
    for before, after in zip(base, half, strict=True):
        whole = before["num_examples"] + before["val_examples"]
        assert before["val_examples"] == whole // 10
        assert after["val_examples"] == whole // 2


def test_weighting_and_cap(base: list[dict[str, Any]], tmp_path: Path) -> None:
    assert len({row["weight"] for row in base}) > 1
    assert {row["weight"] for row in changed(tmp_path, "strategy.weighting=uniform")} == {0.25}
    assert {row["weight"] for row in changed(tmp_path / "cap", "strategy.weight_cap=1")} == {0.25}


def test_max_update_norm(base: list[dict[str, Any]], tmp_path: Path) -> None:
    assert not any(row["rejected"] for row in base)
    with pytest.raises(Exception, match="no round had"):
        changed(tmp_path, "strategy.max_update_norm=1e-6")
    assert all("update norm" in row["rejected"] for row in rows(tmp_path / "run"))


def test_validation_comes_before_training(base: list[dict[str, Any]], tmp_path: Path) -> None:
    still = changed(tmp_path, "optimizer.lr=0.0")
    assert [row["val_loss"] for row in still] == [row["val_loss"] for row in base]


def test_threads_per_client(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    try:
        changed(tmp_path, "run.threads_per_client=3")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def site_of(grid: InProcessGrid) -> tuple[Site, State]:
    """SuperNode 100's side, and a copy of its model's initial state."""
    site = open_run(grid.contexts[100]).site
    return site, {key: value.clone() for key, value in site.model.state_dict().items()}


def test_rounds_and_clients_shuffle_differently() -> None:
    site, state = site_of(InProcessGrid("model=logistic_regression federation.num_clients=4"))

    def weight(server_round: int) -> Tensor:
        return site.train(0, Instruction(server_round, (0,), (1.0,)), state)[1]["net.1.weight"]

    one = weight(1)
    assert torch.equal(weight(1), one)
    assert not torch.equal(weight(2), one)


def test_clients_train_in_training_mode_and_are_judged_in_evaluation_mode() -> None:
    site, state = site_of(InProcessGrid("model=mlp model.dropout=0.5 federation.num_clients=4"))
    seen: list[bool] = []
    hook = next(m for m in site.model.modules() if isinstance(m, nn.Dropout)).register_forward_hook(
        lambda module, *_: seen.append(module.training)
    )
    site.train(0, Instruction(1, (0,), (1.0,)), state)
    hook.remove()
    assert seen[0] is False
    assert set(seen[1:]) == {True}


def test_an_unforeseen_error_leaves_as_its_kind_only(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "patient 4711"

    def fail(*_: object) -> None:
        raise KeyError(secret)

    grid = InProcessGrid("model=logistic_regression federation.num_clients=4")
    site, state = site_of(grid)
    monkeypatch.setattr(site.shards, "of", fail)
    (report,) = site.evaluate(Instruction(0, (0,)), state).reports  # in a simulation it is the person's own
    assert str(report.rejected).startswith("KeyError: 'patient 4711' (tests/server/test_settings.py, line ")
    assert str(report.rejected).endswith(", in fail)")
    monkeypatch.setattr(site.protection, "_on_device", True)
    (report,) = site.evaluate(Instruction(0, (0,)), state).reports
    assert report.rejected == "KeyError (see the client's log)"
    assert site.train(0, Instruction(1, (0,), (1.0,)), state) == (ClientReport(0, rejected=report.rejected), {})
    message = Message(RecordDict(), 100, "train")
    with pytest.raises(RuntimeError, match=r"^KeyError \(see the client's log\)$"):
        app(message, grid.contexts[100])
