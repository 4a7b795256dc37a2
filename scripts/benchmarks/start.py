"""From the command to its first round: with trackers, sweeper, notebook and live page away, there, and asked for."""

import importlib.util
import json
import statistics
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.arms import SCRIPTS, command, workplace
from benchmarks.result import Point, Result, Table, median_and_range

__all__ = ["run"]

SHORT = ("model=logistic_regression", "federation.num_rounds=1", "federation.num_clients=2", "run.num_supernodes=1")
# Not pandas, Starlette and Uvicorn: scikit-learn, Flower Datasets and Flower bring them.
PACKAGES = ("mlflow", "wandb", "optuna", "IPython", "ipykernel")
PLUGIN = "hydra_plugins.hydra_optuna_sweeper"  # Hydra imports every plug-in that it finds
AWAY, PLAIN = "none of them installed", "none of them asked for"
ASKED: Mapping[str, tuple[str, tuple[str, ...]]] = {  # what it is, by the package that it needs
    "run.live=true": ("starlette", ("run.live=true",)),
    "tracker=mlflow": ("mlflow", ("tracker=mlflow", "tracker.artifacts=false")),
    "tracker=wandb": ("wandb", ("tracker=wandb", "tracker.artifacts=false")),
    "hydra/sweeper=optuna": (
        "optuna",
        ("-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=1", "run.objective=test_loss"),
    ),
}
# Python runs a module of this name at its start. It keeps packages from being found, and says at the end what the
# command has imported and what it took of a core.
WATCH = """
import atexit, json, os, resource, sys

class Away:
    def find_spec(self, name, path=None, target=None):
        if name in away or name.partition(".")[0] in away:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

away = set(filter(None, os.environ.get("START_AWAY", "").split(",")))
sys.meta_path.insert(0, Away())

def say():
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = {"modules": len(sys.modules), "packages": sorted({name.partition(".")[0] for name in sys.modules}),
             "cpu": used.ru_utime + used.ru_stime}
    with open(os.path.join(os.environ["START_SAID"], f"{os.getpid()}.json"), "w") as file:
        json.dump(found, file)

atexit.register(say)
"""
SECONDS = ("imported", "first_round", "cpu")


def run(options: Namespace) -> Result:
    """All arms in turn, after one call of each to warm up."""
    arms: dict[str, tuple[str, ...]] = {AWAY: (), PLAIN: ()}
    for name in options.asked:
        package, more = ASKED[name]
        arms |= {name: more} if importlib.util.find_spec(package) is not None else {}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in arms}
    with workplace() as home:
        (home / "watch").mkdir()
        (home / "watch" / "sitecustomize.py").write_text(WATCH, encoding="utf-8")
        for number in range(options.repetitions + 1):
            for index, (name, more) in enumerate(arms.items()):
                measured = measure(home / f"{number}-{index}", home, more, away=name == AWAY)
                if number:
                    found[name].append(measured)
    return Result(
        [{"arm": name, **row} for name in arms for row in found[name]],
        table_of(found),
        [Point("to the first round", name, tuple(row["first_round"] for row in found[name])) for name in arms],
        "seconds",
    )


def measure(place: Path, home: Path, more: tuple[str, ...], *, away: bool) -> dict[str, Any]:
    """Seconds from the command's start, and what it imported, of which `packages` are those of the features."""
    place.mkdir()
    absent = ",".join((*PACKAGES, PLUGIN)) if away else ""
    extra = {"PYTHONPATH": str(home / "watch"), "START_SAID": str(place), "START_AWAY": absent}
    pids: list[int] = []
    sweep = f"hydra.sweep.dir={place}/run", f"hydra.run.dir={place}/run/0"
    arguments = [sys.executable, str(SCRIPTS / "run.py"), *more, *SHORT, *sweep]  # -m is first
    if any(item.startswith("tracker=mlflow") for item in more):
        arguments.append(f"tracker.uri={(place / 'mlruns').as_uri()}")
    command(arguments, home, place / "log", pids.append, extra)
    marks = json.loads((place / "run" / "0" / "timeline.json").read_text(encoding="utf-8"))
    said = json.loads((place / f"{pids[0]}.json").read_text(encoding="utf-8"))
    return {
        "imported": marks["imported and composed"],
        "first_round": marks["first round finished"],
        "cpu": said["cpu"],
        "modules": said["modules"],
        "packages": [name for name in (*PACKAGES, "starlette", "uvicorn") if name in said["packages"]],
    }


def table_of(found: Mapping[str, list[dict[str, Any]]]) -> Table:
    table = Table(
        *("asked for", "imported and composed, s", "first round finished, s", "of a core in all, s"),
        *("of a core, to the first row", "modules", "of the features' packages"),
        title="scripts/run.py from its start, medians (ranges); work in other processes is not in the time of a core",
    )
    reference = statistics.median(row["cpu"] for row in found[AWAY])
    for name, rows in found.items():
        seconds = [median_and_range([row[key] for row in rows], 2) for key in SECONDS]
        ratio = statistics.median(row["cpu"] for row in rows) / reference
        packages = ", ".join(rows[0]["packages"]) or "none"
        table.add_row(name, *seconds, f"{ratio:.2f}", str(rows[0]["modules"]), packages)
    return table
