"""Averaging on the server: updates a second and peak memory, against Flower's own, each in a process of its own.

python -m benchmarks.aggregation ARM COHORT PARAMETERS    one measurement, as a line of JSON
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from flwr.app import MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from torch import Tensor

from benchmarks.arms import SCRIPTS, STOCK_APP, ArmError
from benchmarks.result import Point, Result, Table, median_and_range
from fedapp.aggregation.exact_sum import examine
from fedapp.aggregation.rules import WeightedMean
from fedapp.server.exchange import LARGEST_PULL
from fedapp.wire.records import state_to_arrays
from fedapp.wire.reply import ClientReport, Reply, pack_reply, unpack_reply

__all__ = ["flower", "measure", "ours", "run"]

ARMS = ("fedapp", "flower")
LAYERS = 10


def update(number: int, parameters: int) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(number)
    return {f"layer{i}": torch.randn(parameters // LAYERS, generator=random) for i in range(LAYERS)}


def ours(cohort: int, parameters: int) -> tuple[float, dict[str, Any]]:
    """Replies of single clients, opened, screened and added one after the other, as the round does; no more of them are
    in memory than it takes from the SuperLink at a time. Seconds, and the mean of all updates."""
    held = max(1, min(cohort, LARGEST_PULL // (8 * parameters)))
    replies = [pack_reply(Reply((ClientReport(i),), {i: update(i, parameters)})) for i in range(held)]
    template = update(0, parameters)
    start = time.perf_counter()
    rule = WeightedMean(template)
    for i in range(cohort):
        found = unpack_reply(replies[i % held]).updates[i % held]
        screening = examine(found, template)
        if screening.fault is not None:
            raise ArmError(screening.fault)
        rule.add(i, found, 1 / cohort, screening.largest)
    total, weight = rule.result()
    mean = {key: value.div_(weight).float().numpy() for key, value in total.items()}
    return time.perf_counter() - start, mean


def flower(cohort: int, parameters: int) -> tuple[float, dict[str, Any]]:
    """As Flower's FedAvg does it: all replies of the round in memory, then `aggregate_arrayrecords`."""
    held = max(1, min(cohort, LARGEST_PULL // (8 * parameters)))  # so many different ones, as in the other arm
    replies = [
        RecordDict(
            {
                "arrays": state_to_arrays(update(i % held, parameters)),
                "metrics": MetricRecord({"num-examples": 1}),
            }
        )
        for i in range(cohort)
    ]
    start = time.perf_counter()
    mean = aggregate_arrayrecords(replies, "num-examples")
    found = {key: array.numpy() for key, array in mean.items()}
    return time.perf_counter() - start, found


def measure(arm: str, cohort: int, parameters: int) -> dict[str, Any]:
    before = psutil.Process().memory_info().rss
    seconds, mean = {"fedapp": ours, "flower": flower}[arm](cohort, parameters)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    norm = float(np.sqrt(sum(float(np.square(value, dtype=np.float64).sum()) for value in mean.values())))
    return {"arm": arm, "cohort": cohort, "seconds": seconds, "peak_bytes": peak, "norm": norm}


def run(options: Namespace) -> Result:
    """Every cohort that fits into memory, the arms in turn; that of Flower needs room for all updates at once."""
    parameters = options.parameters
    columns = ("cohort", "fedapp, GB/s", "Flower, GB/s", "fedapp / Flower", "fedapp, peak MB", "Flower, peak MB")
    table = Table(*columns, title=f"updates of {parameters:,} float32 parameters; medians (ranges)")
    rows: list[dict[str, Any]] = []
    points = []
    for cohort in options.cohort:
        fits = 2 * 4 * parameters * cohort < psutil.virtual_memory().available
        arms = ARMS if fits else ARMS[:1]
        found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
        for _ in range(options.repetitions):
            for arm in arms:
                found[arm].append(_in_process_of_its_own(arm, cohort, parameters))
        norms = [row["norm"] for each in found.values() for row in each]
        if max(norms) - min(norms) > 1e-4 * max(norms):
            raise ArmError(f"cohort {cohort}: the means differ, their norms are {norms}")
        rates = {arm: [4e-9 * parameters * cohort / row["seconds"] for row in each] for arm, each in found.items()}
        peaks = {arm: f"{max(row['peak_bytes'] for row in each) / 1e6:,.0f}" for arm, each in found.items()}
        rows += [
            {**row, "gigabytes_a_second": rate}
            for arm in arms
            for row, rate in zip(found[arm], rates[arm], strict=True)
        ]
        points += [Point(f"cohort {cohort}", arm, tuple(rates[arm])) for arm in arms]
        ratio = f"{statistics.median(rates['fedapp']) / statistics.median(rates['flower']):.2f}" if fits else ""
        shown = median_and_range(rates["flower"], 2) if fits else "does not fit"
        mine = median_and_range(rates["fedapp"], 2)
        table.add_row(f"{cohort:,}", mine, shown, ratio, peaks["fedapp"], peaks.get("flower", ""))
    return Result(rows, table, points, "GB of updates a second")


def _in_process_of_its_own(arm: str, cohort: int, parameters: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.aggregation", arm, str(cohort), str(parameters)]
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([root, str(SCRIPTS), str(STOCK_APP), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ArmError(f"aggregation by {arm} with cohort {cohort} failed:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
