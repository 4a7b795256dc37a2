"""The best model of a run: kept, made the result on request, and there again after going on."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import ROOT
from in_process import run_in_process
from safetensors.torch import load_file
from secure_runs import lines, summary

from fedapp.common.errors import ConfigError
from fedapp.common.state_digest import state_sha256
from fedapp.inference.formats import FORMATS
from fedapp.inference.saved import load_run
from fedapp.launch.resume_arguments import resumed_arguments

# A learning rate at which the loss goes up again after some rounds.
RUN = (
    "data=breast_cancer data.scaling=published model=logistic_regression partition=iid federation.num_clients=4"
    " federation.fraction_train=1 optimizer.lr=1 optimizer.momentum=0.9 train.batch_size=8"
)


def digest(path: Path) -> str:
    return state_sha256(load_file(path))


@pytest.fixture(scope="module")
def last(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_in_process(tmp_path_factory.mktemp("best") / "run", f"{RUN} federation.num_rounds=8")


def test_it_is_the_model_after_its_round(last: Path, tmp_path: Path) -> None:
    found = summary(last)
    losses = {line["round"]: line["test_loss"] for line in lines(last, "metrics.jsonl") if line["round"]}
    assert found["best_round"] == min(losses, key=lambda number: losses[number]) < 8
    again = run_in_process(tmp_path / "run", f"{RUN} federation.num_rounds={found['best_round']}")
    assert digest(last / "best.safetensors") == summary(again)["model_sha256"] != found["model_sha256"]
    assert digest(again / "best.safetensors") == digest(again / "model.safetensors")
    assert load_run(last, best=True).sha256 == summary(again)["model_sha256"]
    assert load_run(last).sha256 == found["model_sha256"]


def test_as_the_result_it_is_what_is_judged_and_saved(last: Path, tmp_path: Path) -> None:
    best = run_in_process(tmp_path / "run", f"{RUN} federation.num_rounds=8 federation.result=best")
    assert summary(best)["model_sha256"] == digest(last / "best.safetensors")
    assert summary(best)["test_loss"] == summary(best)["best_loss"] < summary(last)["test_loss"]
    assert summary(best)["final_val_loss"] != summary(last)["final_val_loss"]
    assert (summary(best)["result"], summary(last)["result"]) == ("best", "last")


@pytest.mark.parametrize("every", [1, 3])
def test_a_run_that_goes_on_has_it_again(last: Path, tmp_path: Path, every: int) -> None:
    settings = f"{RUN} run.checkpoint_every={every} run.output_dir={tmp_path / 'run'}"
    first = run_in_process(tmp_path / "run", f"{settings} federation.num_rounds=7")
    assert summary(first)["best_round"] == summary(last)["best_round"] < 7
    run_in_process(tmp_path / "run", f"{settings} federation.num_rounds=8 run.resume=auto federation.patience=50")
    assert digest(tmp_path / "run" / "best.safetensors") == digest(last / "best.safetensors")
    assert summary(tmp_path / "run")["model_sha256"] == summary(last)["model_sha256"]


def test_patience_ends_a_run_on_it(last: Path, tmp_path: Path) -> None:
    run = run_in_process(
        tmp_path / "run", f"{RUN} federation.num_rounds=50 federation.patience=2 federation.result=best"
    )
    found = summary(run)
    assert found["rounds"] == found["best_round"] + 2
    assert f"the best model is that of round {found['best_round']}" in found["stop_reason"]
    assert found["model_sha256"] == digest(last / "best.safetensors")


def test_without_test_data_it_is_the_model_that_the_clients_judged(tmp_path: Path) -> None:
    """Their metrics in a round's line are of the model that the round began with."""
    data = RUN.replace("data=breast_cancer data.scaling=published", "data=synthetic data.shape=[6] data.num_classes=2")
    run = run_in_process(tmp_path / "run", f"{data} data.test_examples=0 data.num_examples=300 federation.num_rounds=6")
    losses = [line["val_loss"] for line in lines(run, "metrics.jsonl")[1:]]
    assert summary(run)["best_round"] == losses.index(min(losses))
    again = run_in_process(
        tmp_path / "again",
        f"{data} data.test_examples=0 data.num_examples=300 federation.num_rounds={summary(run)['best_round'] or 1}",
    )
    if summary(run)["best_round"]:
        assert digest(run / "best.safetensors") == summary(again)["model_sha256"]


@pytest.mark.slow
def test_where_nobody_can_tell_there_is_none(tmp_path: Path) -> None:
    data = RUN.replace("data=breast_cancer data.scaling=published", "data=synthetic data.shape=[6] data.num_classes=2")
    blind = "data.test_examples=0 train.val_fraction=0 federation.final_evaluation=false federation.result=best"
    run = run_in_process(tmp_path / "run", f"{data} {blind} federation.num_rounds=2")
    assert not (run / "best.safetensors").exists()
    assert summary(run)["best_loss"] is None
    with pytest.raises(Exception, match=r"has no best.safetensors: nobody had data"):
        load_run(run, best=True)


@pytest.mark.slow
def test_export_takes_it(last: Path, tmp_path: Path) -> None:
    command = ["scripts/export.py", str(last), "--format", "torchscript", "--best", "--output", f"{tmp_path}/m.pt"]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    inputs, run = torch.randn(3, 30), FORMATS["torchscript"].load(tmp_path / "m.pt")
    assert torch.allclose(run(inputs), load_run(last, best=True).predict(inputs, "x"), atol=1e-5)


# --- --resume -------------------------------------------------------------------------------------------------------


def test_a_run_goes_on_by_its_own_overrides(last: Path) -> None:
    own = f"{RUN} federation.num_rounds=8".split()
    assert resumed_arguments(["--resume", str(last)]) == [*own, f"run.resume='{last}'"]
    assert resumed_arguments([f"--resume={last}"]) == [*own, f"run.resume='{last}'"]
    more = resumed_arguments(["federation.num_rounds=20", "--resume", str(last)])
    assert more == [*own[:-1], "federation.num_rounds=20", f"run.resume='{last}'"]
    checkpoint = last / "checkpoint" / "round-00008.safetensors"
    assert resumed_arguments(["--resume", str(checkpoint)])[-1] == f"run.resume='{checkpoint}'"
    assert resumed_arguments(["data=digits"]) == ["data=digits"]


def test_and_ends_as_if_it_had_never_been_stopped(last: Path, tmp_path: Path) -> None:
    run = run_in_process(tmp_path / "run", f"{RUN} federation.num_rounds=5 run.output_dir={tmp_path / 'run'}")
    arguments = resumed_arguments(["--resume", str(run), "federation.num_rounds=8"])
    assert not any("output_dir" in argument for argument in arguments)
    run_in_process(run, " ".join(argument.replace("'", "") for argument in arguments))
    assert summary(run)["model_sha256"] == summary(last)["model_sha256"]


@pytest.mark.parametrize("given", [["--resume"], ["--resume", "--check"], ["--resume="], ["--resume", "/nowhere"]])
def test_what_is_no_run_is_named(given: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"^--resume.*(needs the directory of a run|holds no checkpoint)"):
        resumed_arguments(given)
