#!/usr/bin/env python3
"""What a federated model of text is to be judged by, on the same held-out lines and clients.

    python scripts/baselines.py experiment=keyboard
    python scripts/baselines.py experiment=keyboard --run outputs/<date>/<time>        beside the model of a run
    python scripts/baselines.py experiment=keyboard --clients 100 --epochs 10 --json baselines.json

A model of three words with Kneser-Ney smoothing on all training text; the experiment's network on all training text,
on as many windows as all rounds of the federation have; the network of each client alone, and with --run the run's
model and what each client makes of it by fine-tuning, of some clients (--clients). Overrides are those of the run.
The second table compares, on each text, the model that was judged last with the others. Intervals are of 95 %, by the
bootstrap over clients. The exit status is 2, with one message, where something is wrong.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, whatever else is installed

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from fedapp.common.errors import FedappError
from fedapp.common.files import write_atomically
from fedapp.compare.judged_text import Difference, Row
from fedapp.compare.token_baselines import Baselines
from fedapp.config import by_group, compose
from fedapp.learning.metrics import Metric

WIDTH = 160  # of a file or a pipe


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for scripts/run.py")
    parser.add_argument("--run", type=Path, help="the directory of a finished run of these overrides")
    parser.add_argument("--clients", type=int, default=40, help="that train a network of their own; 0: none [40]")
    parser.add_argument("--epochs", type=int, default=5, help="that they train for [5]")
    parser.add_argument("--skip-pooled", action="store_true", help="do not train the network on all text")
    parser.add_argument("--json", type=Path, help="write the figures into this file, too")
    return parser.parse_intermixed_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    torch.set_num_threads(1)
    try:
        with console.status("") as status:
            made = Baselines(compose(by_group(options.overrides)))
            judge(made, options, status.update)
        rows, differences = made.judged.rows(), made.judged.differences(list(made.task.metrics))
        show(console, made.task.metrics, rows, differences)
        if options.json is not None:
            content = {
                "overrides": options.overrides,
                "models": [asdict(row) for row in rows],
                "differences": [asdict(row) for row in differences],
            }
            write_atomically(options.json, (json.dumps(without_nan(content), indent=2) + "\n").encode())
    except (FedappError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def judge(made: Baselines, options: argparse.Namespace, tell: Callable[[str], None]) -> None:
    tell("a model of three words")
    made.trigram()
    if not options.skip_pooled:
        tell(f"the network on all text ({made.windows_of_the_federation:,} windows)")
        made.pooled()
    if options.run is not None:
        made.run(options.run)
    if options.clients:
        made.alone(options.clients, options.epochs, tell)
        if options.run is not None:
            made.fine_tuned(options.run, options.clients, options.epochs, tell)


def without_nan(content: Any) -> Any:
    """JSON has no NaN: what is not known is null."""
    if isinstance(content, dict):
        return {key: without_nan(value) for key, value in content.items()}
    if isinstance(content, list):
        return [without_nan(value) for value in content]
    return None if content != content else content


def show(
    console: Console, metrics: Mapping[str, Metric], rows: Sequence[Row], differences: Sequence[Difference]
) -> None:
    table = Table("model", "on", *metrics, box=SIMPLE_HEAD, padding=(0, 1))
    for row in rows:
        cells = [f"{found.value:.4g} ({found.low:.4g} to {found.high:.4g})" for found in row.metrics.values()]
        table.add_row(row.model, row.on, *cells)
    console.print(table)
    table = Table("model", "against", "on", "metric", "difference", "ratio", box=SIMPLE_HEAD, padding=(0, 1))
    for found in differences:
        more, times = found.difference, found.ratio
        table.add_row(
            *(found.model, found.than, found.on),
            found.metric + (" (less is better)" if metrics[found.metric].lower_is_better else ""),
            f"{more.value:+.4f} ({more.low:+.4f} to {more.high:+.4f})",
            f"{times.value:.3f} ({times.low:.3f} to {times.high:.3f})",
        )
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
