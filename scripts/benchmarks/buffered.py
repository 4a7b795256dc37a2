"""Virtual time to an accuracy, by clients of very different speed: synchronous rounds that ask more clients than they
need, and buffered rounds with as many clients at work.

Virtual time follows from the config alone, so these figures are the same on any machine. Both arms train alike and step
alike; the weight of stale updates is the default. On seeds 101 and 105, not measured here, updates of equal weight did
worse; other buffer sizes and weights were not all compared.
"""

import statistics
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.arms import SCRIPTS, ArmError, command, lines_of, workplace
from benchmarks.client_dp_accuracy import interval
from benchmarks.result import Point, Result, Table, median_and_range

__all__ = ["run"]

TARGET, MOST = 0.95, 600  # accuracy on the test data; rounds in which it must be reached
NEEDED, OVER_SELECTION = 10, 0.3
CONCURRENCY = round(NEEDED * (1 + OVER_SELECTION))  # as many as synchronous rounds ask
WORK = (
    "federation.client_speed=lognormal federation.client_speed.sigma=0.8 federation.num_clients=100"
    " federation.fraction_train=0.1 train.local_epochs=5"  # 10 of clients that have 14 examples on average
    f" federation.num_rounds={MOST} federation.target_accuracy={TARGET} federation.final_evaluation=false"
    f" run.checkpoint_every={MOST}"
)
BUFFERED = f"rounds=buffered rounds.concurrency={CONCURRENCY}"
REFERENCE = "synchronous, 30 % over-selection"


def arms_of(buffers: Sequence[int]) -> dict[str, str]:
    """By name, overrides: the reference, and buffered rounds with a step for so many updates."""
    found = {REFERENCE: f"rounds=synchronous federation.over_selection={OVER_SELECTION}"}
    return found | {f"buffered, a step for every {size}": f"{BUFFERED} rounds.buffer_size={size}" for size in buffers}


def run(options: Namespace) -> Result:
    """All arms on digits, with `options.repetitions` seeds from 0 on."""
    table = Table(
        *("arm", "virtual seconds", "steps", "updates used", "MB both ways", "reference / this, mean (95 %)"),
        title=f"digits, log-normal speeds with sigma 0.8, to a test accuracy of {TARGET}; medians and ranges",
    )
    arms = arms_of(options.buffers)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in arms}
    with workplace() as home:
        for seed in range(options.repetitions):
            for number, (name, overrides) in enumerate(arms.items()):
                place = home / f"{number}-{seed}"
                found[name].append({"seed": seed, **measure(f"{overrides} {WORK} run.seed={seed}", place, home)})
                print(name, found[name][-1], flush=True)
    rows, points = [{"arm": name, **row} for name in arms for row in found[name]], []
    for name, mine in found.items():
        ratios = [
            theirs["virtual_seconds"] / ours["virtual_seconds"]
            for theirs, ours in zip(found[REFERENCE], mine, strict=True)
        ]
        columns = [
            median_and_range([row[key] for row in mine], digits)
            for key, digits in (("virtual_seconds", 1), ("steps", 0), ("updates", 0), ("megabytes", 1))
        ]
        low, high = interval(ratios)
        table.add_row(name, *columns, f"{statistics.mean(ratios):.2f} ({low:.2f} to {high:.2f})")
        points.append(Point("digits", name, tuple(row["virtual_seconds"] for row in mine)))
    return Result(rows, table, points, "virtual seconds")


def measure(overrides: str, place: Path, home: Path) -> dict[str, float]:
    """Of a run of scripts/run.py, what it took to reach the accuracy. Raises ArmError where it does not."""
    place.mkdir()
    given = [*overrides.split(), f"hydra.run.dir={place}/run"]
    command([sys.executable, str(SCRIPTS / "run.py"), *given], home, place / "log")
    lines = lines_of(place / "run" / "metrics.jsonl")
    if lines[-1]["test_accuracy"] < TARGET:
        raise ArmError(f"{overrides}: {lines[-1]['test_accuracy']:.3f} after {lines[-1]['round']} rounds")
    return {
        "virtual_seconds": lines[-1]["virtual_seconds"],
        "steps": lines[-1]["round"],
        "updates": sum(line["replied"] - line["unused"] for line in lines[1:]),
        "megabytes": sum(line["bytes_up"] + line["bytes_down"] for line in lines[1:]) / 1e6,
    }
