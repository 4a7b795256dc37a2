"""Models of people's own: what they hold that others do not, and what is wrong with them, said with file and line."""

import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from in_process import InProcessGrid, run_in_process, run_on
from own_conf import conf_of_own
from safetensors.torch import load_file
from secure_runs import lines, summary

from fedapp.common.errors import ConfigError, FederationError
from fedapp.config import CONF_DIR, compose
from fedapp.server.check_config import check_config

MODULE = """
import torch
from torch import nn


class Normed(nn.Sequential):
    def __init__(self, schema):
        super().__init__(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10))


class Embedded(nn.Module):
    def __init__(self, schema):
        super().__init__()
        self.table, self.head = nn.Embedding(17, 4), nn.Linear(4, 10)

    def forward(self, x):
        return self.head(self.table(x.flatten(1)).mean(1))


class Lstm(nn.Module):
    def __init__(self, schema):
        super().__init__()
        from opacus.layers import DPLSTM

        self.lstm, self.head = DPLSTM(8, 6, batch_first=True), nn.Linear(6, 10)

    def forward(self, x):
        return self.head(self.lstm(x.flatten(1, -2))[0][:, -1])


class Tied(nn.Module):
    def __init__(self, schema):
        super().__init__()
        self.up, self.down, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.down.weight = self.up.weight

    def forward(self, x):
        return self.head(torch.relu(self.down(torch.relu(self.up(x.flatten(1))))))


class FailsInTraining(nn.Module):
    def __init__(self, schema):
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        if self.training and len(x) > 2:
            raise KeyError("no such layer: head2")
        return self.head(x.flatten(1))


class FailsAtOnce(FailsInTraining):
    def forward(self, x):
        return self.head(x)
"""
MODELS = ("Normed", "Embedded", "Lstm", "Tied", "FailsInTraining", "FailsAtOnce")
RUN = "partition=iid federation.num_clients=4 federation.fraction_train=1 federation.num_rounds=2"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    conf = Path(shutil.copytree(CONF_DIR, tmp_path / "conf"))
    (tmp_path / "my_models.py").write_text(MODULE)
    for name in MODELS:
        (conf / "model" / f"{name}.yaml").write_text(f"_target_: my_models.{name}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with conf_of_own(monkeypatch, conf):
        yield importlib.import_module("my_models")
    sys.modules.pop("my_models", None)


@pytest.mark.parametrize("model", ["Lstm", "Tied"])
def test_tensors_with_two_names_are_trained_sent_once_and_saved(own: ModuleType, tmp_path: Path, model: str) -> None:
    grid = InProcessGrid(f"{RUN} model={model}")
    run = run_on(grid, tmp_path / "run", f"{RUN} model={model}")
    found = lines(run, "metrics.jsonl")
    assert found[-1]["test_loss"] < found[0]["test_loss"]
    parameters = summary(run)["parameters"]
    assert found[-1]["bytes_down"] < 2 * parameters * 4 + 4000  # two SuperNodes, and headers
    state = load_file(run / "model.safetensors")
    twin = {"Lstm": ("lstm.weight_ih_l0", "lstm.l0.ih.weight"), "Tied": ("up.weight", "down.weight")}[model]
    assert torch.equal(*(state[f"net.{name}"] for name in twin))


@pytest.mark.slow  # Opacus takes seconds to import
def test_and_under_differential_privacy_they_are_trained_too(own: ModuleType, tmp_path: Path) -> None:
    private = "privacy=dp_sgd privacy.target_epsilon=500 train.val_fraction=0 federation.final_evaluation=false"
    run = run_in_process(tmp_path / "run", f"{RUN} model=Lstm {private} run.output_dir={tmp_path / 'run'}")
    before = run_in_process(tmp_path / "same", f"{RUN} model=Lstm federation.num_rounds=1 optimizer.lr=1e-30")
    first, last = (load_file(path / "model.safetensors")["net.lstm.l0.ih.weight"] for path in (before, run))
    assert not torch.allclose(first, last, atol=1e-4)


@pytest.mark.slow
def test_batch_norm_is_not_given_batches_of_one(own: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train.batch_size=1: the model's BatchNorm trains on 2"):
        check_config(compose(f"{RUN} model=Normed train.batch_size=1".split()))
    run = run_in_process(tmp_path / "run", f"{RUN} model=Normed train.batch_size=2")
    assert summary(run)["status"] == "finished"


def test_a_client_with_one_example_is_left_out_by_name(own: ModuleType, tmp_path: Path) -> None:
    few = "data=synthetic data.shape=[64] data.num_examples=13 data.test_examples=20 train.val_fraction=0"
    common = f"{RUN} {few} partition=size_skewed federation.min_clients=1"
    run = run_in_process(tmp_path / "run", f"{common} model=Normed")
    (said,) = set(summary(run)["faults"].values())
    assert said.startswith("1 training example, and the model's BatchNorm trains on 2 or more: give it more")
    assert summary(run)["clients"] + len(summary(run)["faults"]) == 4


def test_an_embedding_that_gets_numbers_says_what_it_needs(own: ModuleType) -> None:
    with pytest.raises(ConfigError) as refused:
        check_config(compose(f"{RUN} model=Embedded".split()))
    for part in ("my_models.py, line 17, in forward", "vocabulary=", "x[:, i].long()", "float32"):
        assert part in str(refused.value)


def test_an_error_in_ones_own_model_is_said_with_file_and_line(own: ModuleType, tmp_path: Path) -> None:
    where = r"my_models.py, line \d+, in forward\)"
    with pytest.raises(ConfigError, match=rf"FailsAtOnce cannot take examples .*: RuntimeError: .*{where}"):
        check_config(compose(f"{RUN} model=FailsAtOnce".split()))
    with pytest.raises(FederationError, match=rf"rounds in a row.*4 of 4 clients said: KeyError: .*head2.*{where}"):
        run_in_process(tmp_path / "run", f"{RUN} model=FailsInTraining federation.num_rounds=9")
    assert "my_models.py, line" in summary(tmp_path / "run")["stop_reason"]
    assert "my_models.py, line" in lines(tmp_path / "run", "clients.jsonl")[0]["rejected"]
