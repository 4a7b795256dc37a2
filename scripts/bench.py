#!/usr/bin/env python3
"""Benchmarks: figures of this machine, each a ratio to a reference that was measured in the same run.

python scripts/bench.py dp-sgd        DP-SGD in each of Opacus's modes against plain SGD
python scripts/bench.py ledger        what bookkeeping costs of a client's round under DP-SGD
python scripts/bench.py features      a round of task=transfer, with features computed and kept
python scripts/bench.py secagg        secure aggregation by the size of the cohort: bytes and seconds
python scripts/bench.py dp-sgd --repetitions 3 --steps 5 --json figures.json
"""

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import torch  # noqa: E402
from benchmarks import dp_sgd, features, ledger, secure_aggregation  # noqa: E402
from rich.console import Console  # noqa: E402

BENCHMARKS = {"dp-sgd": dp_sgd.run, "ledger": ledger.run, "features": features.run, "secagg": secure_aggregation.run}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=BENCHMARKS)
    parser.add_argument("--repetitions", type=int, default=7, help="of every arm, after one to warm up [7]")
    parser.add_argument("--steps", type=int, default=10, help="of training in each repetition [10]")
    parser.add_argument("--threads", type=int, default=1, help="of torch [1]")
    parser.add_argument("--json", type=Path, help="write every single measurement to this file")
    options = parser.parse_args(arguments)
    for name in ("repetitions", "steps", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} {getattr(options, name)}: must be at least 1")
    torch.set_num_threads(options.threads)
    rows, table = BENCHMARKS[options.benchmark](options.repetitions, options.steps)
    packages = {name: version(name) for name in ("torch", "opacus", "flwr")}
    Console().print(table)
    print(f"{platform.machine()}, torch threads {options.threads}, repetitions {options.repetitions}, {packages}")
    if options.json:
        machine = {"machine": platform.machine(), "threads": options.threads, "versions": packages}
        options.json.write_text(json.dumps({"benchmark": options.benchmark, **machine, "rows": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
