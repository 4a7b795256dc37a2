"""Regression on real targets: trained in deviations, told in the unit of the target."""

from pathlib import Path

import pytest
import torch
from in_process import run_in_process
from safetensors.torch import load_file
from secure_runs import lines, summary

from fedapp.common.errors import ConfigError
from fedapp.config import compose
from fedapp.inference.predict import predict
from fedapp.inference.saved import load_run
from fedapp.server.check_config import check_config

RUN = (
    "data=csv data.label=price data.regression=true model=mlp partition=iid federation.num_clients=4"
    " federation.fraction_train=1 federation.num_rounds=30 task.metrics=[r2,rmse]"
)


def table(path: Path, offset: float, spread: float, count: int = 400) -> Path:
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(count, 3, generator=random)
    prices = offset + spread * (rows @ torch.tensor([0.8, -0.5, 0.3]) + 0.1 * torch.randn(count, generator=random))
    cells = torch.cat([rows, prices[:, None]], 1).tolist()
    path.write_text("a,b,c,price\n" + "".join(",".join(f"{value:.6g}" for value in row) + "\n" for row in cells))
    return path


def prices(path: Path) -> torch.Tensor:
    return torch.tensor([float(line.split(",")[3]) for line in path.read_text().splitlines()[1:]])


@pytest.mark.slow
@pytest.mark.parametrize(("offset", "spread"), [(450_000.0, 120_000.0), (3e9, 1e9), (0.02, 0.004), (0.0, 1.0)], ids=str)
def test_targets_of_any_size_train_alike(tmp_path: Path, offset: float, spread: float) -> None:
    run = run_in_process(tmp_path / "run", f"{RUN} data.path={table(tmp_path / 't.csv', offset, spread)}")
    found = summary(run)
    assert found["test_r2"] > 0.95
    assert found["test_rmse"] < 0.25 * spread
    assert found["test_loss"] < 0.1  # in deviations
    assert found["final_val_mae"] < 0.25 * spread
    state = load_file(run / "model.safetensors")
    assert float(state["output.offset"]) == pytest.approx(offset, abs=0.2 * spread)
    assert float(state["output.scale"]) == pytest.approx(spread, rel=0.15)
    predicted = predict(load_run(run), [tmp_path / "t.csv"])
    assert abs(float(predicted.values.mean()) - offset) < 0.3 * spread


def test_the_constants_are_those_over_all_clients_training_examples(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", 1000.0, 50.0)
    more = f"{RUN} data.path={path} data.test_fraction=0 train.val_fraction=0 federation.final_evaluation=false"
    run = run_in_process(tmp_path / "run", f"{more} federation.num_rounds=1", 3)
    state = load_file(run / "model.safetensors")
    assert float(state["output.offset"]) == pytest.approx(float(prices(path).mean()), rel=1e-5)
    assert float(state["output.scale"]) == pytest.approx(float(prices(path).std(correction=0)), rel=1e-5)


def test_targets_that_are_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,price\n" + "".join(f"{i},7\n" for i in range(60)))
    run = run_in_process(tmp_path / "run", f"{RUN} data.path={path} federation.num_rounds=2")
    assert summary(run)["test_mae"] < 1.0
    assert float(load_file(run / "model.safetensors")["output.scale"]) == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["huber", "quantile task.loss.q=0.9"])
def test_other_losses_work_in_deviations_too(tmp_path: Path, loss: str) -> None:
    path = table(tmp_path / "t.csv", 450_000.0, 120_000.0)
    run = run_in_process(tmp_path / "run", f"{RUN} data.path={path} task/loss={loss}")
    assert summary(run)["test_r2"] > 0.9
    if "quantile" in loss:
        above = predict(load_run(run), [path]).values.squeeze(1) > prices(path)
        assert 0.75 < float(above.float().mean()) < 0.99


@pytest.mark.slow
def test_under_secure_aggregation_the_constants_are_given(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", 450_000.0, 120_000.0)
    plain = f"{RUN} data.path={path} data.scaling=none"  # these features have deviation 1
    secure = f"{plain} secure_aggregation=secaggplus federation.final_evaluation=false"
    with pytest.raises(ConfigError, match=r"task.kind.scaling=federated.*single clients.*task.kind.scaling=given"):
        check_config(compose(secure.split()))
    given = "task/kind=regression task.kind.scaling=given task.kind.mean=450000 task.kind.deviation=120000"
    run = run_in_process(tmp_path / "run", f"{secure} {given}")
    assert summary(run)["test_r2"] > 0.95
    assert summary(run)["warnings"] == []
    assert 1024 < lines(run, "metrics.jsonl")[-1]["val_mae"] < 40_000  # it is sent, in the unit of the target


def test_and_under_differential_privacy() -> None:
    private = "privacy=dp_sgd train.val_fraction=0 federation.final_evaluation=false"
    data = "data=synthetic data.shape=[5] data.num_classes=null model=mlp partition=iid"
    with pytest.raises(ConfigError, match=r"task.kind.scaling=federated: under privacy=dp_sgd.*given"):
        check_config(compose(f"{data} {private}".split()))
    given = "task/kind=regression task.kind.scaling=given task.kind.mean=0 task.kind.deviation=4"
    check_config(compose(f"{data} {private} {given}".split()))


@pytest.mark.parametrize(
    "setting",
    ["scaling=given", "mean=3", "deviation=2", "scaling=given task.kind.mean=3", "scaling=none task.kind.mean=3"],
)
def test_constants_that_say_nothing_or_too_little_are_refused(setting: str) -> None:
    data = "data=synthetic data.shape=[5] data.num_classes=null model=mlp task/kind=regression"
    with pytest.raises(ConfigError, match=r"task.kind.mean=.*task.kind.deviation=.*scaling=given"):
        check_config(compose(f"{data} task.kind.{setting}".split()))


@pytest.mark.slow
@pytest.mark.parametrize("trainable", ["head", "last_k"])
def test_a_network_that_is_partly_frozen_predicts_in_the_unit_of_the_target(tmp_path: Path, trainable: str) -> None:
    """The constants travel, though nothing around them is trained."""
    data = "data=synthetic data.shape=[3,16,16] data.num_classes=null data.num_examples=300 data.separation=5000"
    model = f"model=torchvision model.name=resnet18 model.norm=group model.pretrained=false model.trainable={trainable}"
    common = (
        "partition=iid federation.num_clients=3 federation.fraction_train=1 federation.num_rounds=2 optimizer.lr=1e-7"
    )
    run = run_in_process(tmp_path / "run", f"{data} {model} {common}")
    state = load_file(run / "model.safetensors")
    assert float(state["output.scale"]) > 1000
    assert summary(run)["test_loss"] < 100  # deviations, also as clients see them; without, some 25,000,000
    assert lines(run, "metrics.jsonl")[-1]["val_loss"] < 100
