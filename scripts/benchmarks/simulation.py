"""A simulated round: this app against the plain loop, Flower's own way and pfl, on the same work."""

import statistics
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.arms import ARMS, workplace
from benchmarks.result import Point, Result, Table, median_and_range
from benchmarks.work import Trace, Work

__all__ = ["ROUNDS", "compare", "run"]

WARMUP = 2
ROUNDS = {("2nn", 10): 22, ("2nn", 100): 10, ("cnn", 10): 8, ("cnn", 100): 5}  # by model and cohort, with warm-up


def run(options: Namespace) -> Result:
    title = "a round of 100 clients x 100 examples of 28 x 28, batch 10; times are medians (ranges)"
    table = Table(
        "model", "cohort", "arm", "a round, s", "to ideal", "to fedapp", "command to first round, s", title=title
    )
    rows, points = [], []
    with workplace() as home:
        for model in options.model:
            for cohort in options.cohort:
                work = Work(model, cohort, ROUNDS[model, cohort], WARMUP)
                traces = compare(work, options.arms, options.repetitions, home)
                found = _rows(work, traces)
                rows += found
                points += [Point(f"{model}, cohort {cohort}", row["arm"], tuple(row["rounds"])) for row in found]
                for row in found:
                    ratios = [f"{row[key]:.2f}" if row[key] else "" for key in ("to_ideal", "to_fedapp")]
                    times = median_and_range(row["rounds"]), median_and_range(row["first"], 1)
                    table.add_row(model, str(cohort), row["arm"], times[0], *ratios, times[1])
    return Result(rows, table, points, "seconds a round")


def compare(work: Work, arms: Sequence[str], repetitions: int, home: Path) -> dict[str, list[Trace]]:
    """The arms in turn, `repetitions` times."""
    traces: dict[str, list[Trace]] = {arm: [] for arm in arms}
    for repetition in range(repetitions):
        for arm in arms:
            place = home / f"{arm}-{work.model}-{work.cohort}-{repetition}"
            place.mkdir()
            work.write(place)
            traces[arm].append(ARMS[arm](work, place, home))
    return traces


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
