"""The command line of scripts/audit.py."""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["parse"]


def parse(arguments: Sequence[str] | None, description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for scripts/run.py [experiment=audit]")
    parser.add_argument("--unit", choices=("example", "client"), default="example", help="what is attacked [example]")
    parser.add_argument("--canaries", action="store_true", help="look for single lines in a model of text")
    parser.add_argument("--copies", type=copies, default=(1, 4, 16), help="of a canary at its client [1,4,16]")
    parser.add_argument("--epsilon", type=epsilons, default=(8.0, 3.0, 1.0), help="budgets, e.g. 8,1 [8,3,1]")
    parser.add_argument(
        "--candidates", type=count(1), help="examples whose membership is guessed [100]; canaries of each kind [10]"
    )
    parser.add_argument(
        "--shadows", type=count(2), default=32, help="federations the attacker trains to learn from [32]"
    )
    parser.add_argument("--attacked", type=count(2), default=32, help="federations that are attacked [32]")
    parser.add_argument("--batch-size", type=count(1), default=4, help="examples in the update that is inverted [4]")
    parser.add_argument("--confidence", type=share, default=0.95, help="of every interval and bound [0.95]")
    parser.add_argument("--jobs", type=count(1), default=os.cpu_count() or 1, help="processes [one per core]")
    parser.add_argument("--output", type=Path, help="a new or empty directory [outputs/<date>/audit-<time>]")
    options = parser.parse_intermixed_args(arguments)
    if options.candidates is None:
        options.candidates = 10 if options.canaries else 100
    elif options.candidates < 20 and not options.canaries:
        parser.error("argument --candidates: must be a whole number of at least 20")
    return options


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


def count(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (found := number(text)).is_integer() or found < least:
            raise argparse.ArgumentTypeError(f"{text}: must be a whole number of at least {least}")
        return int(found)

    return read


def copies(text: str) -> tuple[int, ...]:
    return tuple(count(1)(part) for part in text.split(","))


def epsilons(text: str) -> tuple[float, ...]:
    found = tuple(number(part) for part in text.split(",") if part)
    if not all(0 < epsilon < float("inf") for epsilon in found):
        raise argparse.ArgumentTypeError(f"{text}: must be numbers greater than 0, with commas between")
    return found


def share(text: str) -> float:
    if not 0.5 <= (found := number(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 0.5 and below 1")
    return found
