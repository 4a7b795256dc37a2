"""A simulated round: this app against the plain loop, Flower's own way and pfl, on the same work."""

import shutil
import statistics
import subprocess
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.arms import ARMS, ArmError, pfl, workplace
from benchmarks.result import Point, Result, Table, median_and_range
from benchmarks.work import Trace, Work

__all__ = ["ROUNDS", "check", "compare", "run"]

Arm = Callable[[Work, Path, Path], Trace]
# In nats: arms differ in the order of examples, and the stock app draws cohorts of its own in every run, by which the
# loss of a single round is now and then 0.1 off while it falls steeply.
LOSSES_AGREE = 0.1  # over all rounds

WARMUP = 2
ROUNDS = {("2nn", 10): 22, ("2nn", 100): 10, ("cnn", 10): 8, ("cnn", 100): 5}  # by model and cohort, with warm-up


def run(options: Namespace) -> Result:
    title = "a round of 100 clients x 100 examples of 28 x 28, batch 10; times are medians (ranges)"
    table = Table(
        "model", "cohort", "arm", "a round, s", "to ideal", "to fedapp", "command to first round, s", title=title
    )
    rows, points = [], []
    arms = available(options.arms, options.pfl_python)
    with workplace() as home:
        for model, cohort in cases(options):
            rounds = WARMUP + 1 if options.quick else ROUNDS[model, cohort]
            work = Work(model, cohort, rounds, WARMUP)
            found = _rows(work, compare(work, arms, options.repetitions, home))
            rows += found
            points += [Point(f"{model}, cohort {cohort}", row["arm"], tuple(row["rounds"])) for row in found]
            for row in found:
                ratios = [f"{row[key]:.2f}" if row[key] else "" for key in ("to_ideal", "to_fedapp")]
                times = median_and_range(row["rounds"]), median_and_range(row["first"], 1)
                table.add_row(model, str(cohort), row["arm"], times[0], *ratios, times[1])
    return Result(rows, table, points, "seconds a round")


def cases(options: Namespace) -> list[tuple[str, int]]:
    """Model and cohort: those asked for, else all but the one that takes longest."""
    if options.model is None and options.cohort is None:
        return [("2nn", 10), ("2nn", 100), ("cnn", 10)]
    return [(model, cohort) for model in options.model or ("2nn", "cnn") for cohort in options.cohort or (10, 100)]


def available(names: Sequence[str], pfl_python: str) -> dict[str, Arm]:
    """The arms asked for; without pfl where that is not installed."""
    arms = {name: ARMS[name] for name in names}
    if "pfl" in arms:
        probe = subprocess.run([pfl_python, "-c", "import pfl"], capture_output=True, check=False)
        if probe.returncode == 0:
            arms["pfl"] = partial(pfl, python=pfl_python)
        else:
            del arms["pfl"]
            print("pfl is left out: pip install -e '.[bench]', or name a Python that has it by --pfl-python")
    return arms


def compare(work: Work, arms: Mapping[str, Arm], repetitions: int, home: Path) -> dict[str, list[Trace]]:
    """The arms in turn, `repetitions` times."""
    traces: dict[str, list[Trace]] = {arm: [] for arm in arms}
    for repetition in range(repetitions):
        for arm in arms:
            place = home / f"{arm.replace(', ', '-')}-{work.model}-{work.cohort}-{repetition}"
            place.mkdir()
            work.write(place)
            traces[arm].append(arms[arm](work, place, home))
            shutil.rmtree(place)
    check(work, traces)
    return traces


def check(work: Work, traces: Mapping[str, Sequence[Trace]], tolerance: float = LOSSES_AGREE) -> None:
    """Raises ArmError unless all arms did the same: all rounds, as many steps in each, losses that agree."""
    runs = [(arm, trace) for arm, found in traces.items() for trace in found]
    first, reference = runs[0]
    for arm, trace in runs:
        if len(trace.ends) != work.rounds or trace.steps != reference.steps:
            raise ArmError(f"{arm} did {trace.steps} steps, {first} did {reference.steps}")
        for number, (mine, other) in enumerate(zip(trace.losses, reference.losses, strict=True), start=1):
            if not abs(mine - other) <= 3 * tolerance:
                raise ArmError(f"round {number}: the loss is {mine:.4f} with {arm}, {other:.4f} with {first}")
        mine, other = statistics.mean(trace.losses), statistics.mean(reference.losses)
        if not abs(mine - other) <= tolerance:
            raise ArmError(f"the mean loss of all rounds is {mine:.4f} with {arm}, {other:.4f} with {first}")


def _rows(work: Work, traces: dict[str, list[Trace]]) -> list[dict[str, Any]]:
    """One for every arm, with each single measurement."""
    rounds = {arm: [seconds for trace in runs for seconds in trace.rounds(work.warmup)] for arm, runs in traces.items()}
    medians = {arm: statistics.median(seconds) for arm, seconds in rounds.items()}
    return [
        {
            "model": work.model,
            "cohort": work.cohort,
            "arm": arm,
            "rounds": rounds[arm],
            "first": [trace.to_first_round for trace in runs],
            "losses": [trace.losses for trace in runs],
            "steps": [trace.steps for trace in runs],
            **{
                f"to_{other}": medians[arm] / medians[other] if other in medians else None
                for other in ("ideal", "fedapp")
            },
        }
        for arm, runs in traces.items()
    ]
