"""Measures of vertical learning at size: matching, and simulated epochs against the same split network in one
process."""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
import torch

from fedapp.config import compose
from fedapp.vertical.matching import double, hide, hide_distinct, match
from fedapp.vertical.pooled import PooledTraining
from fedapp.vertical.vertical_options import vertical_options

__all__ = ["Epochs", "Matching", "measure_epochs", "measure_matching", "write_parties"]

ROOT = Path(__file__).resolve().parents[2]
ENTITIES = 2_000  # at each party without labels: many rows have the same, so that matching takes no time


@dataclass(frozen=True)
class Matching:
    """Seconds of one core at the label party and at the other, and how far the memory of both together grew, in
    bytes."""

    identities: int
    matched: int
    label_party: float
    other: float
    memory: int


def measure_matching(identities: int) -> Matching:
    """Both ends of a pair in this process, with as many identities each, half of them in common."""
    mine = [f"person-{at}" for at in range(identities)]
    theirs = [f"person-{at}" for at in range(identities // 2, identities // 2 + identities)]
    before, spent = peak_bytes(), [0.0, 0.0]

    def timed(side: int, start: float) -> None:
        spent[side] += time.process_time() - start

    start = time.process_time()
    own = hide_distinct(mine, "measure")
    timed(0, start)
    start = time.process_time()
    other = hide(theirs, "measure")
    doubled = double(own.blinded.points, other, most=identities)
    timed(1, start)
    start = time.process_time()
    found = match(own, other.points, doubled, most=identities)
    timed(0, start)
    matched = int((found >= 0).sum())
    assert matched == identities - identities // 2
    return Matching(identities, matched, *spent, peak_bytes() - before)


def peak_bytes() -> int:
    """The largest memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def write_parties(folder: Path, rows: int) -> list[str]:
    """Three parties' files, and the overrides that name them: sales at the label party, customers and goods that occur
    in many of them."""
    draw = np.random.default_rng(0)
    customer, product = (draw.integers(0, ENTITIES, rows) for _ in range(2))
    traits, prices = (draw.standard_normal((ENTITIES, 8)) for _ in range(2))
    own = draw.standard_normal((rows, 8))
    late = traits[customer, 0] + prices[product, 0] + own[:, 0] > 0
    names = ",".join(f"x{at}" for at in range(8))
    for party, key, values in (("customers", "customer", traits), ("goods", "product", prices)):
        lines = (f"{key[0]}{at}," + ",".join(f"{value:.4f}" for value in row) for at, row in enumerate(values))
        (folder / f"{party}.csv").write_text(f"{key},{names}\n" + "\n".join(lines) + "\n")
    with (folder / "sales.csv").open("w") as file:
        file.write(f"customer,product,{names},late\n")
        for who, what, row, label in zip(customer, product, own, late, strict=True):
            file.write(f"c{who},p{what}," + ",".join(f"{value:.4f}" for value in row) + f",{'ny'[int(label)]}\n")
    files = ",".join(f"{party}:{folder}/{party}.csv" for party in ("customers", "goods", "sales"))
    return [
        *(
            "task=vertical",
            "data=party_files",
            f"data.parties={{{files}}}",
            "data.label_party=sales",
            "data.label=late",
        ),
        *("data.keys={customers:customer,goods:product}", "data.test_fraction=0.02", "train.batch_size=512"),
    ]


@dataclass(frozen=True)
class Epochs:
    """Median seconds of an epoch, in a simulation and of the same network in one process. The first epoch of either is
    left out."""

    rows: int
    simulated: float
    joined: float

    @property
    def ratio(self) -> float:
        return self.simulated / self.joined


def measure_epochs(rows: int, epochs: int, folder: Path, overrides: Sequence[str] = ()) -> Epochs:
    """By turns: some epochs of either, in processes of their own; twice."""
    given = [*write_parties(folder, rows), f"federation.num_rounds={epochs + 1}", *overrides]
    simulated: list[float] = []
    joined: list[float] = []
    for turn in range(2):
        run = folder / f"run-{turn}"
        command = [sys.executable, str(ROOT / "scripts" / "run.py"), *given, f"run.output_dir={run}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        simulated += [line["seconds"] for line in lines if line["round"] > 1]
        joined += _joined_epochs(given)
    return Epochs(rows, median(simulated), median(joined))


def _joined_epochs(given: Sequence[str]) -> list[float]:
    """Of the network in this process, without masks, seals and messages, each epoch with its evaluation."""
    config = compose(list(given))
    torch.set_num_threads(config.run.threads_per_client)
    options = vertical_options(config)
    training = PooledTraining(config, options, options.names)
    marks = [time.perf_counter()]

    def seen(epoch: int, *_: object) -> None:
        if epoch > len(marks):
            training.judge()
            for learner in training.learners.values():
                learner.part.net.train()
            marks.append(time.perf_counter())

    training.train(seen)
    training.judge()
    marks.append(time.perf_counter())
    return [end - start for start, end in pairwise(marks[1:])]
