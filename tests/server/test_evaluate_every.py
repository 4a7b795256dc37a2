"""Central evaluation of some rounds only: the same run, with the figures of the others left out."""

from pathlib import Path

import pytest
from in_process import run_in_process
from secure_runs import lines, summary

RUN = (
    "data=breast_cancer data.scaling=published model=logistic_regression partition=iid federation.num_clients=4"
    " federation.fraction_train=1 optimizer.lr=1"
)


@pytest.fixture(scope="module")
def each(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_in_process(tmp_path_factory.mktemp("every") / "run", f"{RUN} federation.num_rounds=7")


def losses(directory: Path) -> list[float | None]:
    return [line["test_loss"] for line in lines(directory, "metrics.jsonl")]


def test_rounds_in_between_have_no_figures_and_the_last_one_has(each: Path, tmp_path: Path) -> None:
    some = run_in_process(tmp_path / "run", f"{RUN} federation.num_rounds=7 federation.evaluate_every=3")
    wanted = [value if number in (0, 3, 6, 7) else None for number, value in enumerate(losses(each))]
    assert losses(some) == wanted
    assert summary(some)["test_loss"] == summary(each)["test_loss"] == losses(some)[-1]
    assert summary(some)["model_sha256"] == summary(each)["model_sha256"]
    assert summary(some)["best_round"] in (3, 6, 7)


def test_a_run_that_stops_in_between_is_evaluated_and_so_after_going_on(each: Path, tmp_path: Path) -> None:
    """With patience it stops after two evaluated rounds that are no better, the sixth; and with no time left after the
    first, which is not one of those that are evaluated."""
    rules = "federation.patience=2 federation.min_delta=100 federation.evaluate_every=2"
    stopped = run_in_process(tmp_path / "run", f"{RUN} federation.num_rounds=7 {rules}")
    assert summary(stopped)["rounds"] == 6
    seconds = f"{RUN} run.output_dir={tmp_path / 'short'} federation.evaluate_every=5"
    short = run_in_process(tmp_path / "short", f"{seconds} federation.num_rounds=4 federation.max_seconds=1e-9")
    assert losses(short) == [losses(each)[0], None]
    assert (summary(short)["rounds"], summary(short)["test_loss"]) == (1, losses(each)[1])
    more = run_in_process(tmp_path / "short", f"{seconds} federation.num_rounds=2 run.resume=auto")
    assert (summary(more)["rounds"], summary(more)["test_loss"]) == (2, losses(each)[2])
