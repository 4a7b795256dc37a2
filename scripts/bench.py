#!/usr/bin/env python3
"""Benchmarks: figures of this machine, each a ratio to a reference that was measured in the same run.

python scripts/bench.py simulation    a simulated round against a plain loop, Flower's own way, and pfl
python scripts/bench.py command       the whole default run and a sweep: seconds beyond the rounds' own
python scripts/bench.py scale         100 to 10,000 virtual clients, cohorts of 10 to 1,000: seconds, memory, bytes
python scripts/bench.py aggregation   averaging of updates against Flower's own: speed and memory
python scripts/bench.py deployment    a round with two SuperNodes on this machine against a stock Flower app
python scripts/bench.py start         from the command to its first round, by tracker, sweeper and live page
python scripts/bench.py dp-sgd        DP-SGD in each of Opacus's modes against plain SGD
python scripts/bench.py ledger        what bookkeeping costs of a client's round under DP-SGD
python scripts/bench.py features      a round of task=transfer, with features computed and kept
python scripts/bench.py secure-aggregation    bytes, and seconds of client and server, by the size of the cohort
python scripts/bench.py helper-sums    bytes and seconds of helper masks, BFV and Paillier
python scripts/bench.py client-dp     what client-level DP adds to a round, and to a round of secure aggregation
python scripts/bench.py client-dp-accuracy    AUC of experiment=flights_client_dp: budgets, forms, clipping norms
python scripts/bench.py compare       seconds of each arm of scripts/compare.py against the run on all data pooled
python scripts/bench.py compression    bytes up, accuracy and seconds of each codec against none
python scripts/bench.py buffered      virtual time to an accuracy, by synchronous and by buffered rounds
python scripts/bench.py slow-links    four SuperNodes behind slow uplinks: buffered rounds, and 8 bits (as root)
python scripts/bench.py language      a round of experiment=keyboard against a plain loop, and DP-SGD on its LSTM
python scripts/bench.py all           the first five, with their defaults, as in docs/speed.md
python scripts/bench.py dp-sgd --repetitions 3 --steps 5 --json figures.json --plot figures.png

The arms of a comparison take turns. Shown are medians and ranges of all repetitions.
"""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE), str(HERE / "benchmarks" / "stock-app")]

import torch  # noqa: E402
from benchmarks.bars import bars  # noqa: E402
from benchmarks.options import parse  # noqa: E402
from benchmarks.show import save, show  # noqa: E402
from rich.console import Console  # noqa: E402

from fedapp.common.errors import FedappError  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parse(__doc__ or "", arguments)
    found = {}
    try:
        for run, options in asked:
            if "threads" in options:
                torch.set_num_threads(options.threads)
            result = run(options)
            show(result.table, options)
            save(result, options)
            found[options.benchmark] = result.rows
    except FedappError as error:
        Console(stderr=True).print(f"error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped", style="bold red")
        return 130
    if (table := bars(found)).rows:
        show(table, options)
    return 0


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):  # what was started must be ended then, too
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
