#!/usr/bin/env python3
"""Runs side by side: a table of the runs below a folder, and a page that draws chosen ones over each other.

    python scripts/runs.py                                   the runs below outputs/
    python scripts/runs.py ~/fedapp-runs                     those of another folder
    python scripts/runs.py outputs --html runs.html          a page that draws them, one file that needs no network
    python scripts/runs.py outputs --only wide narrow --html runs.html     of these names (or folders' names) alone

Nothing is removed or changed but the page that --html names. The exit status is 2, with one message, where something
is wrong.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, whatever else is installed

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedapp.common.errors import FedappError
from fedapp.common.files import write_atomically
from fedapp.report.runs import COLUMNS, chosen, find_runs


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("outputs"), help="[outputs]")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="runs of these names alone")
    parser.add_argument("--html", type=Path, help="the page to write")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    console = Console()
    try:
        if not options.folder.is_dir():
            raise FedappError(f"{options.folder}: is no folder; give the one that holds your runs")
        runs, faults = find_runs(options.folder)
        for fault in faults:
            print(f"left out: {fault}", file=sys.stderr)
        if not runs:
            raise FedappError(f"{options.folder}: there is no run in it (a folder with config.yaml and metrics.jsonl)")
        runs = chosen(runs, options.only)
        table = Table(*COLUMNS)
        for run in runs:
            table.add_row(*(escape(cell) for cell in run.cells()))
        console.print(table)
        if options.html is not None:
            from fedapp.report.runs_page import runs_page  # matplotlib takes a second to import

            write_atomically(options.html, runs_page(runs).encode())
            console.print(f"page  {options.html.absolute()}", soft_wrap=True, highlight=False)
    except (FedappError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
