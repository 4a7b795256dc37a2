"""`python -m fedapp.report RUN_DIR` builds the report anew and prints its path."""

import argparse
import sys
from pathlib import Path

from fedapp.common.errors import FedappError
from fedapp.report.page import write_report

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 1 where the directory holds no run."""
    parser = argparse.ArgumentParser(prog="python -m fedapp.report", description="Rebuild report.html of a run.")
    parser.add_argument("run_dir", type=Path, help="directory with config.yaml and metrics.jsonl")
    try:
        print(write_report(parser.parse_args(arguments).run_dir))
    except FedappError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
