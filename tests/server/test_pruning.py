"""`run.prune`: a trial ends that is worse than the median of the trials beside it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from in_process import run_in_process

from fedapp.common.errors import ConfigError
from fedapp.config import compose
from fedapp.server.pruning import MedianPruning, pruning_of
from fedapp.server.stopping import StopRules

CONFIG = {"task": {"name": "horizontal"}, "data": {"seed": 0}, "run": {"objective": "final_val_loss"}}


def trial(
    directory: Path,
    losses: Sequence[float | None],
    *,
    status: str = "finished",
    reason: str = "all rounds done",
    **other: Any,
) -> Path:
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text(yaml.safe_dump({**CONFIG, **other}))
    lines = ({"round": number, "val_loss": loss} for number, loss in enumerate(losses, start=1))
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if status:
        (directory / "summary.json").write_text(json.dumps({"status": status, "stop_reason": reason}))
    return directory


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Five trials: their losses after round 2 are 0.1 to 0.5, and the median is 0.3."""
    for number in range(1, 6):
        trial(tmp_path / str(number), [1.0, number / 10, 0.05])
    return tmp_path


def judged(sweep: Path, losses: Sequence[float | None], *, lower: bool = True, after: int = 1) -> str | None:
    own = trial(sweep / "own", losses, status="")
    return MedianPruning(own, "val_loss", lower, after).reason(len(losses))


@pytest.mark.parametrize(
    ("losses", "lower", "after", "ends"),
    [
        ([1.0, 0.31], True, 1, True),
        ([1.0, 0.3], True, 1, False),
        ([1.0, 0.29], True, 1, False),
        ([1.0, 0.29], False, 1, False),  # the best so far is 1.0
        ([0.2, 0.29], False, 1, True),
        ([0.2, 0.9], True, 1, False),
        ([1.0, 0.9], True, 3, False),
        ([1.0, None], True, 1, True),  # it has diverged
        ([None, None], True, 1, False),  # nobody has judged it
    ],
    ids=[
        "worse",
        "as good",
        "better",
        "was good upwards",
        "worse upwards",
        "was good",
        "early",
        "diverged",
        "unjudged",
    ],
)
def test_a_trial_ends_that_is_worse_than_the_median(
    sweep: Path, losses: list[float | None], lower: bool, after: int, ends: bool
) -> None:
    reason = judged(sweep, losses, lower=lower, after=after)
    assert (reason is not None) == ends
    if ends:
        assert "the median of 5 trials after round 2 (run.prune)" in str(reason)


@pytest.mark.parametrize(
    "other",
    [
        {"status": ""},
        {"status": "failed"},
        {"reason": "pruned: val_loss 0.5 is worse"},
        {"data": {"seed": 1}},
        {"run": {"objective": "final_val_accuracy"}},
        {"losses": [1.0]},
        {"losses": [1.0, None]},
    ],
    ids=["still running", "failed", "pruned", "other data", "other objective", "shorter", "undefined"],
)
def test_only_comparable_trials_count(tmp_path: Path, other: dict[str, Any]) -> None:
    for number in range(1, 5):
        trial(tmp_path / str(number), [1.0, 0.1])
    losses = other.pop("losses", [1.0, 0.1])
    trial(tmp_path / "5", losses, **other)
    assert judged(tmp_path, [1.0, 0.9]) is None  # four are too few
    trial(tmp_path / "6", [1.0, 0.1])
    assert MedianPruning(tmp_path / "own", "val_loss", True, 1).reason(2) is not None


def test_a_damaged_folder_is_no_trial(sweep: Path) -> None:
    (sweep / "5" / "metrics.jsonl").write_text("{}\n{}\n")
    (sweep / "notes.txt").write_text("mine")
    assert judged(sweep, [1.0, 0.9]) is None


def test_the_last_round_is_not_pruned(sweep: Path) -> None:
    own = trial(sweep / "own", [1.0, 0.9], status="")
    for rounds, reason in ((2, "all rounds done"), (3, "pruned: val_loss 0.9 is worse than 0.3, ")):
        rules = StopRules(rounds, pruning=MedianPruning(own, "val_loss", True, 1))
        for _ in range(2):
            rules.update(changed=True, accuracy=None, judged=1.0, seconds=0.0)
        assert str(rules.reason()).startswith(reason)


def test_what_cannot_be_judged_is_refused(tmp_path: Path) -> None:
    for objective in ("seconds", "best_loss", "null"):
        with pytest.raises(
            ConfigError, match=rf"run.prune=2: .* run.objective={objective.replace('null', 'None')} is not"
        ):
            pruning_of(compose(["run.prune=2", f"run.objective={objective}", f"run.output_dir={tmp_path}"]))
    with pytest.raises(
        ConfigError, match=r"run.prune=2: there are no trials beside a run whose run.output_dir is null"
    ):
        pruning_of(compose(["run.prune=2", "run.objective=test_loss"]))
    made = pruning_of(compose(["run.prune=2", "run.objective=final_val_accuracy", f"run.output_dir={tmp_path}"]))
    assert made == MedianPruning(tmp_path, "val_accuracy", lower_is_better=False, after=2)
    assert pruning_of(compose(["run.objective=seconds"])) is None


RUN = "data=breast_cancer model=logistic_regression federation.num_clients=3 federation.num_rounds=4"


@pytest.mark.slow
def test_a_run_is_pruned_and_again_where_it_is_resumed(tmp_path: Path) -> None:
    def tried(name: str, more: str) -> dict[str, Any]:
        settings = f"{RUN} run.objective=final_val_loss run.prune=2 run.output_dir={tmp_path / name} {more}"
        found: dict[str, Any] = json.loads((run_in_process(tmp_path / name, settings) / "summary.json").read_text())
        return found

    for seed in range(5):
        tried(str(seed), f"run.seed={seed}")
    summary = tried("bad", "optimizer.lr=1e-6")
    assert (summary["status"], summary["rounds"]) == ("finished", 2)
    assert summary["stop_reason"].startswith("pruned: val_loss ")
    assert summary["final_val_loss"] > 0  # which the sweeper is told
    assert tried("bad", "optimizer.lr=1e-6 run.resume=auto")["rounds"] == 2
