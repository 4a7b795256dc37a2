"""What a comparison costs: seconds of each arm of scripts/compare.py, as multiples of the run on all data pooled."""

import json
import statistics
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from benchmarks.arms import SCRIPTS, command, workplace
from benchmarks.result import Point, Result, Table, median_and_range

__all__ = ["run"]

REFERENCE, REST = "pooled", "all else"  # `all else`: imports, reading data, intervals and the page


def run(options: Namespace) -> Result:
    """Each experiment with one seed, `options.repetitions` times."""
    table = Table(
        *("experiment", "arm", "seconds", "gradient steps", "as a multiple of pooled"),
        title="arms of a comparison, one seed; medians (ranges)",
    )
    rows: list[dict[str, Any]] = []
    with workplace() as home:
        for number in range(options.repetitions):
            for name in options.experiments:
                rows += measure(name, home / f"{name}-{number}", home)
    points = []
    for name in options.experiments:
        mine = [row for row in rows if row["experiment"] == name]
        for arm in dict.fromkeys(row["arm"] for row in mine):
            seconds = [row["seconds"] for row in mine if row["arm"] == arm]
            ratios = [row["to_pooled"] for row in mine if row["arm"] == arm]
            steps = next(row["steps"] for row in mine if row["arm"] == arm)
            shown = "-" if steps is None else f"{steps:,.0f}"
            table.add_row(name, arm, median_and_range(seconds, 1), shown, f"{statistics.median(ratios):.2f}")
            points.append(Point(name, arm, tuple(seconds)))
    return Result(rows, table, points, "seconds")


def measure(experiment: str, place: Path, home: Path) -> list[dict[str, Any]]:
    """One comparison, which lies in `place`: a row for each arm, and one for what the arms do not take."""
    place.mkdir()
    script = [sys.executable, str(SCRIPTS / "compare.py"), f"experiment={experiment}", "--seeds", "0"]
    start = command([*script, "--output", str(place / "out")], home, place / "log")
    whole = time.time() - start
    arms = json.loads((place / "out" / "comparison.json").read_text("utf-8"))["arms"]
    found = {arm["name"]: (arm["seconds"], arm["steps"]) for arm in arms}
    found[REST] = (whole - sum(seconds for seconds, _ in found.values()), None)
    return [
        {
            "experiment": experiment,
            "arm": name,
            "seconds": seconds,
            "steps": steps,
            "to_pooled": seconds / found[REFERENCE][0],
        }
        for name, (seconds, steps) in found.items()
    ]
