#!/usr/bin/env python3
"""What a federated model of text is to be judged by, on the same held-out lines and clients.

    python scripts/baselines.py experiment=keyboard
    python scripts/baselines.py experiment=keyboard --run outputs/<date>/<time>        beside the model of a run
    python scripts/baselines.py experiment=keyboard --clients 100 --epochs 10 --json baselines.json

A model of three words with Kneser-Ney smoothing on all training text; the experiment's network on all training text,
on as many windows as all rounds of the federation have; the network of each client alone, and with --run the run's
model and what each client makes of it by fine-tuning, of some clients (--clients). Overrides are those of the run.
Intervals are of 95 %, by the bootstrap over clients. The exit status is 2, with one message, where something is wrong.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, whatever else is installed

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from fedapp.common.errors import FedappError
from fedapp.common.files import write_atomically
from fedapp.compare.token_baselines import Baselines, Row
from fedapp.config import by_group, compose

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
            rows, differences = figures(made, options, status.update)
        show(console, made, rows, differences)
        if options.json is not None:
            content = {
                "overrides": options.overrides,
                "models": [asdict(row) for row in rows],
                "differences": differences,
            }
            write_atomically(options.json, (json.dumps(content, indent=2) + "\n").encode())
    except (FedappError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def figures(made: Baselines, options: argparse.Namespace, tell: object) -> tuple[list[Row], list[dict[str, object]]]:
    assert callable(tell)
    tell("a model of three words")
    made.trigram()
    if not options.skip_pooled:
        tell(f"the network on all text ({made.windows_of_the_federation:,} windows)")
        made.pooled()
    if options.run is not None:
        made.run(options.run)
    rows = made.rows()
    if options.clients:
        rows.append(made.alone(options.clients, options.epochs, tell))
        if options.run is not None:
            rows += made.fine_tuned(options.run, options.clients, options.epochs, tell)
    names = list(dict.fromkeys(name for name, key in made.scores if key in made.held_out))
    differences = []
    for other in names[:-1]:
        for key, held in made.held_out.items():
            for metric in ("token_accuracy", "token_top_3"):
                found = made.difference(names[-1], other, key, metric)
                differences.append(
                    {"model": names[-1], "less": other, "on": held.name, "metric": metric, **asdict(found)}
                )
    return rows, differences


def show(console: Console, made: Baselines, rows: Sequence[Row], differences: Sequence[dict[str, object]]) -> None:
    shown = list(made.task.metrics)
    table = Table("model", "on", *shown, box=SIMPLE_HEAD, padding=(0, 1))
    for row in rows:
        cells = [f"{found.value:.4g} ({found.low:.4g} to {found.high:.4g})" for found in row.metrics.values()]
        table.add_row(row.model, row.on, *cells)
    console.print(table)
    table = Table("difference of", "to", "on", "metric", "", box=SIMPLE_HEAD, padding=(0, 1))
    for row in differences:
        cell = f"{row['value']:+.4f} ({row['low']:+.4f} to {row['high']:+.4f})"
        table.add_row(*(str(row[key]) for key in ("model", "less", "on", "metric")), cell)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
