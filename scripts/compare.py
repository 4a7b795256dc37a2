#!/usr/bin/env python3
"""Should these sites federate? Each site alone, all data pooled, federated, and variants, on the same held-out rows.

    python scripts/compare.py experiment=hospitals                        four hospitals, about a minute
    python scripts/compare.py experiment=hospitals --with federation.personal=finetune,strategy=fedprox
    python scripts/compare.py experiment=hospitals --with 'privacy=dp_sgd privacy.target_epsilon=3'
    python scripts/compare.py data=csv data.path=t.csv data.label=y data.group=site partition=natural \\
        federation.num_clients=4 model=mlp                                a table of your own
    python scripts/compare.py partition=dirichlet --seeds 0 --metric accuracy

Overrides are those of scripts/run.py, of the federated arm; `--with` adds arms with other ones, commas between arms,
spaces between the overrides of one. Every arm takes the same number of passes over each site's rows and is judged on
rows that no arm trains on: `train.val_fraction` of each site's, 0.3 unless given.

The last line printed is `compare_dir=<absolute path>`: comparison.json, comparison.html, comparison.png, and a run
directory for each run. The exit status is 1 if no run of an arm finished, 2 if the comparison could not be made.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

# OpenBLAS starts its threads when NumPy is imported, and a process that has threads cannot be forked safely.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, whatever else is installed

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from fedapp.common.errors import ConfigError, FedappError
from fedapp.common.files import write_atomically
from fedapp.compare.compared_arms import variants
from fedapp.compare.comparison import Asked, compare, prepare
from fedapp.launch.local.engine import LocalEngine
from fedapp.report.comparison_tables import cost_rows, gain_rows, remarks, site_rows

WIDTH = 200  # of a file or a pipe


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for scripts/run.py")
    parser.add_argument(
        "--with", dest="variants", action="append", default=[], help="further arms, e.g. privacy=dp_sgd"
    )
    parser.add_argument("--seeds", type=seeds, default=(0, 1, 2), help="of all arms, e.g. 0,1,2 [0,1,2]")
    parser.add_argument("--metric", help="by which to judge [the first of task.metrics]")
    parser.add_argument("--draws", type=count, default=1000, help="of the bootstrap [1000]")
    parser.add_argument("--output", type=Path, help="a new or empty directory [outputs/<date>/compare-<time>]")
    return parser.parse_intermixed_args(arguments)


def seeds(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: must be whole numbers with commas between") from None
    if min(found) < 0 or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text!r}: must be different numbers of at least 0")
    return found


def count(text: str) -> int:
    if not text.isdecimal() or int(text) < 100:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number of at least 100")
    return int(text)


def show(console: Console, result: dict) -> None:
    console.print(f"{result['metric']} on held-out rows, {'less' if result['lower_is_better'] else 'more'} is better")
    for titles, rows in (site_rows(result), gain_rows(result), cost_rows(result)):
        table = Table(*titles, box=SIMPLE_HEAD, padding=(0, 1))
        for row in rows:
            table.add_row(*row)
        console.print(table, markup=False)
    console.print(f"same work: {result['same_work']}", style="dim", soft_wrap=True, highlight=False)
    seeds = ", ".join(map(str, result["seeds"]))
    console.print(
        f"in brackets: 95 % by {result['draws']} draws of whole units; mean of seeds {seeds}; * p < 0.05 by Holm",
        style="dim",
        soft_wrap=True,
        highlight=False,
    )
    for text in remarks(result):
        console.print(f"note: {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    console.print(result["verdict"], style="bold", markup=False, highlight=False, soft_wrap=True)


def run(engine: LocalEngine, options: argparse.Namespace, directory: Path, tell: Callable[[str], None]) -> dict:
    asked = Asked(
        tuple(options.overrides), tuple(variants(options.variants)), options.seeds, options.metric, options.draws
    )
    if directory.exists() and any(directory.iterdir()):
        raise ConfigError(f"--output {directory}: is not empty")
    made = prepare(asked, directory)
    directory.mkdir(parents=True, exist_ok=True)
    return compare(engine, made, directory, tell)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    now = datetime.now()
    directory = (options.output or Path("outputs", f"{now:%Y-%m-%d}", f"compare-{now:%H-%M-%S-%f}")).resolve()
    engine = LocalEngine()  # before the status, which is a thread: a process that has threads cannot be forked safely
    try:
        with console.status("preparing") as status:
            result = run(engine, options, directory, lambda text: status.update(text))
    except FedappError as error:
        console.print(f"error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print("stopped", style="bold red")
        return 130
    finally:
        engine.end()
    write_atomically(directory / "comparison.json", (json.dumps(result, indent=1, ensure_ascii=False) + "\n").encode())
    from fedapp.report.comparison_page import write_comparison  # matplotlib takes a second to import

    page = write_comparison(directory)
    show(console, result)
    console.print(f"page  {page}", soft_wrap=True, highlight=False)
    print(f"compare_dir={directory}", flush=True)
    return int(any(not arm["runs"] for arm in result["arms"]))


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal or a `kill` must end the workers, too
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
