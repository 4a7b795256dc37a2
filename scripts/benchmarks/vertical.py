#!/usr/bin/env python3
"""The network of a vertical run trained in one process on joined data, and on the label party's columns alone.

    python scripts/benchmarks/vertical.py experiment=flights_vertical federation.num_rounds=4
    python scripts/benchmarks/vertical.py --matching 1000000
    python scripts/benchmarks/vertical.py --epoch 100000

Matches in the clear. Prints metrics on the held-out entities, the 95 % interval of the AUC, and seconds an epoch, to
hold against the same overrides in scripts/run.py. With --matching: seconds and memory of matching so many identities
at two parties. With --epoch: a simulated epoch of so many rows (three parties, batches of 512) as a multiple of one of
the same split network in one process; further overrides change both.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from benchmarks.vertical_measures import measure_epochs, measure_matching
from fedapp.config import compose
from fedapp.vertical.fusion import Sum
from fedapp.vertical.pooled import OneParty, PooledTraining
from fedapp.vertical.vertical_options import vertical_options


def hanley_mcneil(auc: float, positive: int, negative: int) -> float:
    """The standard error of an AUC (Hanley & McNeil 1982)."""
    one, both = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    rest = (positive - 1) * (one - auc**2) + (negative - 1) * (both - auc**2)
    return float(((auc * (1 - auc) + rest) / (positive * negative)) ** 0.5)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for scripts/run.py")
    parser.add_argument("--matching", type=int, metavar="IDENTITIES", help="measure matching so many at each party")
    parser.add_argument("--epoch", type=int, metavar="ROWS", help="measure an epoch of so many rows")
    parser.add_argument("--epochs", type=int, default=3, help="that are timed, after a first one, twice [3]")
    return parser.parse_intermixed_args(arguments)


def main(arguments: Sequence[str]) -> None:
    given = parse(arguments)
    if given.matching is not None:
        found = measure_matching(given.matching)
        print(
            f"matching {found.identities:,} x {found.identities:,} identities: {found.label_party:.1f} s of one core at"
            f" the label party, {found.other:.1f} s at the other; both together {found.memory / 2**20:.0f} MiB more"
            f" memory; {found.matched:,} in common",
            flush=True,
        )
    if given.epoch is not None:
        with tempfile.TemporaryDirectory() as folder:
            timed = measure_epochs(given.epoch, given.epochs, Path(folder), given.overrides)
        print(
            f"an epoch of {timed.rows:,} rows, three parties: simulated {timed.simulated:.2f} s, the same network in"
            f" one process {timed.joined:.2f} s: {timed.ratio:.2f} times",
            flush=True,
        )
    if given.matching is None and given.epoch is None:
        train(given.overrides)


def train(arguments: Sequence[str]) -> None:
    config = compose(list(arguments))
    torch.set_num_threads(config.run.threads_per_client)
    options = vertical_options(config)
    alone = replace(options, fusion=Sum(masked=False), source=OneParty(options))
    for title, which in (("joined", options), ("label party alone", alone)):
        training = PooledTraining(config, which, which.names)
        start = time.perf_counter()
        training.train()
        seconds = (time.perf_counter() - start) / (config.federation.num_rounds * config.train.local_epochs)
        found = training.judge()
        if "auc" in found:
            positive = int((training.test_targets == 1).sum())
            error = hanley_mcneil(found["auc"], positive, len(training.test_targets) - positive)
            found["auc_95"] = 1.96 * error
        shown = "  ".join(f"{name} {value:.4f}" for name, value in found.items())
        print(f"{title:<18} {shown}  {seconds:.1f} s an epoch", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
