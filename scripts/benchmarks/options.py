"""The command line: one subcommand a benchmark. Each module is imported only when its benchmark is asked for."""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from benchmarks.result import Result

__all__ = ["parse"]

Run = Callable[[argparse.Namespace], Result]
MODELS, COHORTS, ARMS = ("2nn", "cnn"), (10, 100), ("ideal", "fedapp", "stock", "pfl")
LEAST = {"repetitions": 1, "steps": 1, "threads": 1, "cohort": 2, "clients": 2, "parameters": 10, "rounds": 2}


def parse(description: str, arguments: Sequence[str] | None) -> tuple[Run, argparse.Namespace]:
    """The benchmark that `arguments` ask for, and its options."""
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=shape)
    commands = parser.add_subparsers(dest="benchmark", required=True)
    _simulation(commands.add_parser("simulation", help="a simulated round", formatter_class=shape))
    _scale(commands.add_parser("scale", help="many virtual clients, large cohorts: seconds, memory, bytes"))
    _aggregation(commands.add_parser("aggregation", help="updates a second and peak memory of averaging"))
    _deployment(commands.add_parser("deployment", help="a round with two SuperNodes, against the stock app"))
    for name in ("dp-sgd", "ledger", "features"):
        _in_process(commands.add_parser(name))
    for command in commands.choices.values():
        _common(command)
    options = parser.parse_args(arguments)
    for name, least in LEAST.items():
        value = getattr(options, name, least)
        for number in value if isinstance(value, list) else [value]:
            if number < least:
                parser.error(f"--{name} {number}: must be at least {least}")
    for name in ("json", "plot"):
        path = getattr(options, name)
        if path is not None and not path.resolve().parent.is_dir():
            parser.error(f"--{name} {path}: there is no folder {path.resolve().parent}")
    module = import_module(f"benchmarks.{options.benchmark.replace('-', '_')}")
    run: Run = module.run
    return run, options


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, help="write every single measurement to this file")
    parser.add_argument("--plot", type=Path, help="draw medians and ranges into this file (.png, .svg, .pdf)")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")


def _in_process(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repetitions", type=int, default=7, help="of every arm, after one to warm up [7]")
    parser.add_argument("--steps", type=int, default=10, help="of training in each repetition [10]")
    parser.add_argument("--threads", type=int, default=1, help="of torch [1]")


def _simulation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repetitions", type=int, default=2, help="runs of every arm, in turn [2]")
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS), help="[both]")
    parser.add_argument("--cohort", nargs="+", type=int, choices=COHORTS, default=list(COHORTS), help="[10 100]")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="[all]")
    parser.add_argument("--pfl-python", default=sys.executable, help="a Python that has pfl, torch and safetensors")


def _scale(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repetitions", type=int, default=1, help="runs of each size [1]")
    parser.add_argument("--clients", nargs="+", type=int, default=[100, 1000, 10_000], help="[100 1000 10000]")
    parser.add_argument("--cohort", nargs="+", type=int, default=[10, 100, 1000], help="up to --clients [10 100 1000]")
    parser.add_argument("--rounds", type=int, default=6, help="of each run, the first of which is not timed [6]")


def _aggregation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repetitions", type=int, default=3, help="of every arm, each in a process of its own [3]")
    parser.add_argument("--cohort", nargs="+", type=int, default=[10, 100, 1000], help="[10 100 1000]")
    parser.add_argument("--parameters", type=int, default=10_000_000, help="of the model [10000000]")


def _deployment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repetitions", type=int, default=1, help="runs of every arm, in turn [1]")
    parser.add_argument("--rounds", type=int, default=4, help="of each run, the first of which is not timed [4]")
