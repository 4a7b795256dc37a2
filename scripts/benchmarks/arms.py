"""The arms of the simulation benchmark, each a command that is timed from outside."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from types import MappingProxyType
from typing import Any

from benchmarks.work import Trace, Work, read_trace
from fedapp.common.cores import allowed_cores
from fedapp.common.errors import FedappError
from fedapp.launch.guard import Guard
from fedapp.launch.local_superlink import flower_environment

__all__ = [
    "ARMS",
    "SCRIPTS",
    "ArmError",
    "command",
    "fedapp",
    "lines_of",
    "pfl",
    "run_fedapp",
    "stock_lines",
    "workplace",
]

SCRIPTS = Path(__file__).resolve().parents[1]
STOCK_APP = SCRIPTS / "benchmarks" / "stock-app"  # its networks are those of the plain arms, too
TIMEOUT = 600.0  # seconds that one run of an arm may take


class ArmError(FedappError):
    """An arm did not come to its end."""


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder for data, results and temporary files of all arms. At its end, however it comes, it goes, and with it
    every process that was started in it."""
    home = Path(mkdtemp(prefix="fb-"))  # short: sockets lie in it, whose paths may have no more than 107 bytes
    guard = Guard(home)
    try:
        yield home
    finally:
        guard.end()


def environment(home: Path, extra: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    """Marks processes as belonging to `home`, a workplace or a folder in it. `extra`: further variables; its PYTHONPATH
    comes first."""
    paths = (extra.get("PYTHONPATH"), str(SCRIPTS), str(STOCK_APP), os.environ.get("PYTHONPATH"))
    path = os.pathsep.join(filter(None, paths))
    return {**flower_environment(home), "TMPDIR": str(home), **extra, "PYTHONPATH": path}


def command(
    arguments: Sequence[str],
    home: Path,
    log: Path,
    watch: Callable[[int], None] | None = None,
    extra: Mapping[str, str] = MappingProxyType({}),
) -> float:
    """Run a command to its end; when it began. Raises ArmError, with the end of its log, if it did not go well."""
    start = time.time()
    with log.open("wb") as file:
        process = subprocess.Popen(arguments, env=environment(home, extra), stdout=file, stderr=file, cwd=home)
        try:
            if watch is not None:
                watch(process.pid)
            status = process.wait(TIMEOUT)
        except BaseException as error:
            process.terminate()
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            status = f"no end after {TIMEOUT:g} s"
    if status != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
        raise ArmError(f"{' '.join(arguments[:4])} ... failed ({status}):\n{tail}")
    return start


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def ideal(work: Work, place: Path, home: Path) -> Trace:
    arguments = [sys.executable, "-m", "benchmarks.ideal", str(place), str(allowed_cores())]
    start = command(arguments, home, place / "ideal.log")
    return read_trace(start, lines_of(place / "ideal.jsonl"))


def fedapp(work: Work, place: Path, home: Path) -> Trace:
    return run_fedapp(work, place, home)


def run_fedapp(
    work: Work, place: Path, home: Path, watch: Callable[[int], None] | None = None, *, engine: str = "local"
) -> Trace:
    """`watch` is given the command's process id."""
    run = place / "run"
    arguments = [sys.executable, str(SCRIPTS / "run.py"), *work.overrides, f"run.output_dir={run}"]
    arguments.append(f"run.engine={engine}")
    start = command(arguments, home, place / "fedapp.log", watch)
    return fedapp_trace(start, run)


def fedapp_trace(start: float, run: Path) -> Trace:
    """From a run directory."""
    steps: dict[int, int] = {}
    for row in lines_of(run / "clients.jsonl"):
        steps[row["round"]] = steps.get(row["round"], 0) + row["steps"]
    rounds = lines_of(run / "metrics.jsonl")[1:]  # the first line is of the initial model
    return read_trace(start, [{**row, "loss": row["train_loss"], "steps": steps[row["round"]]} for row in rounds])


def stock(work: Work, place: Path, home: Path) -> Trace:
    start = command([sys.executable, "-m", "benchmarks.stock", str(place)], home, place / "stock.log")
    return read_trace(start, stock_lines(place, work))


def stock_lines(place: Path, work: Work) -> list[dict[str, Any]]:
    """What the stock app noted; its steps are a mean over clients."""
    return [{**line, "steps": round(line["steps"] * work.cohort)} for line in lines_of(place / "stock.jsonl")]


def pfl(work: Work, place: Path, home: Path, python: str = sys.executable) -> Trace:
    start = command([python, "-m", "benchmarks.pfl_loop", str(place)], home, place / "pfl.log")
    return read_trace(start, lines_of(place / "pfl.jsonl"))


ARMS: Mapping[str, Callable[[Work, Path, Path], Trace]] = {
    "ideal": ideal,
    "fedapp": fedapp,
    "fedapp-flower": partial(run_fedapp, engine="flower"),
    "stock": stock,
    "pfl": pfl,
}
