"""`-m hydra/sweeper=optuna`: a study of twelve trials ends, and refused trials are failed ones."""

import re
from pathlib import Path

import pytest
import yaml
from commands import run_script

pytestmark = pytest.mark.slow
RUN = "data=digits model=logistic_regression federation.num_rounds=1 federation.num_clients=3 run.num_supernodes=1"
STUDY = "hydra/sweeper=optuna hydra.sweeper.n_trials=12 hydra.sweeper.n_jobs=1 hydra.sweeper.sampler.seed=0"
FAST = "federation.final_evaluation=false run.objective=test_accuracy"


def test_a_study_of_twelve_trials(tmp_path: Path) -> None:
    searched = ("optimizer.lr=tag(log, interval(0.01,1))", "train.local_epochs=0,1")
    done = run_script("-m", *STUDY.split(), *RUN.split(), *FAST.split(), *searched, cwd=tmp_path)
    assert done.code == 1, done.output  # since not every run has finished
    refused = done.output.count("train.local_epochs=0: must be at least 1")
    assert 0 < refused < 12
    assert done.output.count("Failed experiment: Return value must be float-castable. Got 'None'.") == refused
    directories = sorted(path.parent for path in tmp_path.rglob("summary.json"))
    assert len(directories) == 12 - refused
    (results,) = tmp_path.rglob("optimization_results.yaml")
    found = yaml.safe_load(results.read_text())
    best = {yaml.safe_load((d / "config.yaml").read_text())["optimizer"]["lr"]: accuracy(d) for d in directories}
    assert found["best_value"] == max(best.values())  # it maximises, without having been told to
    assert best[found["best_params"]["optimizer.lr"]] == found["best_value"]
    assert found["best_params"]["train.local_epochs"] == 1
    assert len(re.findall(r"^.*\brun_dir=", done.output, re.MULTILINE)) == 1


def test_a_trial_of_a_sweep_is_pruned(tmp_path: Path) -> None:
    rates = "optimizer.lr=0.1,0.11,0.12,0.13,0.14,1e-5"
    more = "federation.num_rounds=4 run.objective=final_val_loss run.prune=1"
    done = run_script("-m", *RUN.split(), *more.split(), rates, f"hydra.sweep.dir={tmp_path}/sweep", cwd=tmp_path)
    assert done.code == 0, done.output
    summaries = [yaml.safe_load((tmp_path / "sweep" / str(n) / "summary.json").read_text()) for n in range(6)]
    assert [summary["rounds"] for summary in summaries[:5]] == [4] * 5
    assert summaries[5]["rounds"] < 4
    assert "the median of 5 trials" in summaries[5]["stop_reason"]
    checked = run_script("--check", *RUN.split(), *more.split(), cwd=tmp_path)
    assert checked.code == 0, checked.output


def accuracy(directory: Path) -> float:
    return float(yaml.safe_load((directory / "summary.json").read_text())["test_accuracy"])
