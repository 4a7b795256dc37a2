#!/usr/bin/env python3
"""The network of a vertical run trained in one process on joined data, and on the label party's columns alone.

    python scripts/benchmarks/vertical.py experiment=flights_vertical federation.num_rounds=4

Matches in the clear. Prints metrics on the held-out entities, the 95 % interval of the AUC, and seconds an epoch, to
hold against the same overrides in scripts/run.py.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from fedapp.config import compose
from fedapp.data.party_table import PartySource, PartyTable
from fedapp.data.source import Pooled, Schema
from fedapp.vertical.fusion import Sum
from fedapp.vertical.pooled import PooledTraining
from fedapp.vertical.vertical_options import VerticalOptions, vertical_options


class OneParty(PartySource):
    """The label party of a data set, by itself."""

    def __init__(self, options: VerticalOptions) -> None:
        self._options = options

    @property
    def party_names(self) -> tuple[str, ...]:
        return (self._options.label_party,)

    @property
    def labelled(self) -> str:
        return self._options.label_party

    def schema(self) -> Schema:
        return self._options.source.schema()

    def pooled(self) -> Pooled:
        return self._options.source.pooled()

    def table(self, party: str, label_party: str) -> PartyTable:
        return self._options.source.table(party, label_party)


def hanley_mcneil(auc: float, positive: int, negative: int) -> float:
    """The standard error of an AUC (Hanley & McNeil 1982)."""
    one, both = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    rest = (positive - 1) * (one - auc**2) + (negative - 1) * (both - auc**2)
    return float(((auc * (1 - auc) + rest) / (positive * negative)) ** 0.5)


def main(arguments: list[str]) -> None:
    config = compose(arguments)
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
