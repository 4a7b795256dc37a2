"""The command that a person waits for: the whole default run, and a sweep, against the time that their rounds take."""

import statistics
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from benchmarks.arms import SCRIPTS, command, lines_of, workplace
from benchmarks.result import Point, Result, Table, median_and_range

__all__ = ["run"]

SHORT = ("federation.num_rounds=10",)


def run(options: Namespace) -> Result:
    """Each command once to warm up, then in turn. A sweep is told by what each of its runs adds to a call of one."""
    engines, runs = options.engines, options.runs
    table = Table(
        *("engine", "command to last line, s", "its rounds, s", "command / rounds", "each further run of a sweep, s"),
        title=f"the default run, and beyond its rounds each further run of a sweep of {runs}; medians (ranges)",
    )
    found: dict[str, list[dict[str, Any]]] = {engine: [] for engine in engines}
    with workplace() as home:
        for number in range(options.repetitions + 1):
            for engine in engines:
                place = home / f"{engine}-{number}"
                measured = measure(engine, runs, place, home)
                if number:
                    found[engine].append(measured)
    rows = [{"engine": engine, **row} for engine in engines for row in found[engine]]
    points = []
    for engine in engines:
        mine = found[engine]
        ratio = statistics.median(row["command"] / row["rounds"] for row in mine)
        seconds = [median_and_range([row[key] for row in mine], 1) for key in ("command", "rounds")]
        table.add_row(engine, *seconds, f"{ratio:.2f}", median_and_range([row["further"] for row in mine]))
        points.append(Point("the default run", engine, tuple(row["command"] for row in mine)))
    return Result(rows, table, points, "seconds")


def measure(engine: str, runs: int, place: Path, home: Path) -> dict[str, float]:
    """Seconds: of the default run, `command` and its `rounds`; and what a further run of a sweep takes beyond its
    rounds (`further`)."""
    place.mkdir()
    whole, rounds = timed(place / "default", home, f"run.engine={engine}")
    one, own = timed(place / "one", home, f"run.engine={engine}", *SHORT)
    seeds = ",".join(str(seed) for seed in range(runs))
    many, theirs = timed(place / "many", home, "-m", f"run.seed={seeds}", f"run.engine={engine}", *SHORT)
    return {"command": whole, "rounds": rounds, "further": ((many - theirs) - (one - own)) / (runs - 1)}


def timed(place: Path, home: Path, *arguments: str) -> tuple[float, float]:
    """Seconds of a call of scripts/run.py in the folder `place`, and those of the rounds of all its runs."""
    place.mkdir()
    directories = [f"hydra.sweep.dir={place}/runs", f"hydra.run.dir={place}/runs/0"]
    start = command([sys.executable, str(SCRIPTS / "run.py"), *arguments, *directories], home, place / "log")
    seconds = time.time() - start
    rounds = [line["seconds"] for file in place.glob("runs/*/metrics.jsonl") for line in lines_of(file)[1:]]
    return seconds, sum(rounds)
