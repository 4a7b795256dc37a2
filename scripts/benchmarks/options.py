"""The command line: one subcommand a benchmark. Each module is imported only when its benchmark is asked for."""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.result import Result

__all__ = ["parse"]

Run = Callable[[argparse.Namespace], Result]
MODELS, COHORTS, ARMS = ("2nn", "cnn"), (10, 100), ("ideal", "fedapp", "fedapp-flower", "stock", "pfl")
USUAL = tuple(arm for arm in ARMS if arm != "fedapp-flower")
ENGINES = ("local", "flower")
ASKED = ("run.live=true", "tracker=mlflow", "tracker=wandb", "hydra/sweeper=optuna")
TASKS = ("digits", "flights", "solar head")
CODECS = ("none", *(f"quantise, {bits}" for bits in ("8 bits", "4 bits", "2 bits", "1 bit")))
CODECS += ("drive", "top_k", "top_k, no warm-up")
CODECS += ("differences", "differences, 4 bits", "quantise, 8 bits; differences")
LEAST = {
    "runs": 2,
    "repetitions": 1,
    "steps": 1,
    "threads": 1,
    "cohort": 2,
    "clients": 2,
    "parameters": 10,
    "rounds": 2,
    "seeds": 1,
    "buffers": 2,
}
ALL = ("simulation", "command", "scale", "aggregation", "deployment")
QUICK: dict[str, dict[str, Any]] = {
    "simulation": {"repetitions": 1},
    "command": {"repetitions": 1, "runs": 2},
    "scale": {"repetitions": 1, "clients": [100, 1000], "cohort": [10, 100], "rounds": 3},
    "aggregation": {"repetitions": 1, "parameters": 1_000_000},
    "deployment": {"repetitions": 1, "rounds": 3},
    "client-dp": {"repetitions": 1, "steps": 2},
    "client-dp-accuracy": {"repetitions": 1, "rounds": 3},
    "slow-links": {"repetitions": 1, "rounds": 2, "seconds": 150},
    "language": {"repetitions": 1, "rounds": 2},
    "compression": {"repetitions": 1, "parameters": 10_000, "tasks": ["digits"], "seeds": 1},
}


def parse(description: str, arguments: Sequence[str] | None) -> list[tuple[Run, argparse.Namespace]]:
    """The benchmarks that `arguments` ask for, each with its options."""
    parser = _parser(description, quick="--quick" in (sys.argv if arguments is None else arguments))
    options = parser.parse_args(arguments)
    for name in ("json", "plot"):
        path = getattr(options, name)
        if path is not None and not path.resolve().parent.is_dir():
            parser.error(f"--{name} {path}: there is no folder {path.resolve().parent}")
    if options.benchmark != "all":
        return [(_load(options.benchmark), _checked(parser, options))]
    asked = []
    for name in ALL:
        own = parser.parse_args([name, *(["--quick"] if options.quick else [])])
        own.markdown = options.markdown
        for kind in ("json", "plot"):
            if (path := getattr(options, kind)) is not None:
                setattr(own, kind, path.with_stem(f"{path.stem}-{name}"))
        asked.append((_load(name), _checked(parser, own)))
    return asked


def _load(benchmark: str) -> Run:
    run: Run = import_module(f"benchmarks.{benchmark.replace('-', '_')}").run
    return run


def _checked(parser: argparse.ArgumentParser, options: argparse.Namespace) -> argparse.Namespace:
    """`options`, if their numbers are large enough."""
    for name, least in LEAST.items():
        value = getattr(options, name, None)
        value = least if value is None else value
        for number in value if isinstance(value, list) else [value]:
            if number < least:
                parser.error(f"--{name} {number}: must be at least {least}")
    return options


def _parser(description: str, *, quick: bool) -> argparse.ArgumentParser:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=shape)
    commands = parser.add_subparsers(dest="benchmark", required=True)
    _simulation(commands.add_parser("simulation", help="a simulated round"))
    _command(commands.add_parser("command", help="the whole default run, and a sweep"))
    _start(commands.add_parser("start", help="from the command to its first round, by what is asked for"))
    _scale(commands.add_parser("scale", help="many virtual clients, large cohorts: seconds, memory, bytes"))
    _aggregation(commands.add_parser("aggregation", help="updates a second and peak memory of averaging"))
    _deployment(commands.add_parser("deployment", help="a round with two SuperNodes, against the stock app"))
    commands.add_parser("all", help="these five")
    _in_process(commands.add_parser("dp-sgd", help="DP-SGD in each mode of Opacus"))
    _in_process(commands.add_parser("ledger", help="what bookkeeping costs under DP-SGD"))
    _in_process(commands.add_parser("features", help="features of a frozen part, computed and kept"))
    _secure_aggregation(commands.add_parser("secure-aggregation", help="bytes and seconds by the size of the cohort"))
    _secure_aggregation(commands.add_parser("helper-sums", help="what helper masks and encryption cost"))
    _in_process(commands.add_parser("client-dp", help="what client-level DP adds to a round, and to a secure one"))
    _client_dp_accuracy(commands.add_parser("client-dp-accuracy", help="AUC of experiment=flights_client_dp"))
    _compare(commands.add_parser("compare", help="seconds of each arm of a comparison"))
    _compression(commands.add_parser("compression", help="bytes and accuracy of each codec, and its seconds"))
    _language(commands.add_parser("language", help="a round of the keyboard, and DP-SGD on its LSTM"))
    _buffered(commands.add_parser("buffered", help="virtual time to an accuracy: synchronous and buffered rounds"))
    _slow_links(
        commands.add_parser("slow-links", help="updates and seconds of a round behind slow uplinks; needs root")
    )
    for name, command in commands.choices.items():
        _common(command)
        if quick:
            command.set_defaults(**QUICK.get(name, {"repetitions": 1}))  # what is asked for by name still counts
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, help="write every single measurement to this file")
    parser.add_argument("--plot", type=Path, help="draw medians and ranges into this file (.png, .svg, .pdf)")
    parser.add_argument("--quick", action="store_true", help="small and once: to see that it runs, not for figures")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")


def _in_process(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repetitions", type=int, default=7, help="of every arm, after one to warm up [7]")
    parser.add_argument("--steps", type=int, default=10, help="of training in each repetition [10]")
    parser.add_argument("--threads", type=int, default=1, help="of torch [1]")


def _secure_aggregation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repetitions", type=int, default=1, help="rounds of each cohort, of three clients each [1]")
    parser.add_argument("--parameters", type=int, default=1_000_000, help="of the model [1000000]")


def _client_dp_accuracy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repetitions", type=int, default=3, help="seeds of each arm [3]")
    parser.add_argument("--rounds", type=int, default=40, help="of each run [40]")


def _compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repetitions", type=int, default=3, help="of each comparison [3]")
    parser.add_argument("--experiments", nargs="+", default=["hospitals"], help="of docs/experiments.md [hospitals]")


def _compression(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS[:2]), help="[all but solar head]")
    parser.add_argument("--seeds", type=int, default=3, help="of each task and arm [3]")
    parser.add_argument("--arms", nargs="+", choices=CODECS, default=list(CODECS), help="[all]")
    parser.add_argument("--repetitions", type=int, default=15, help="of each codec [15]")
    parser.add_argument("--parameters", type=int, default=1_000_000, help="of the model for codecs [1000000]")
    parser.add_argument("--threads", type=int, default=1, help="of torch [1]")


def _buffered(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repetitions", type=int, default=5, help="seeds of each arm [5]")
    parser.add_argument("--buffers", nargs="+", type=int, default=[10], help="updates that make a step [10]")


def _slow_links(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repetitions", type=int, default=1, help="runs of each arm, in turn [1]")
    parser.add_argument("--rounds", type=int, default=3, help="of each run with equal links [3]")
    parser.add_argument("--seconds", type=int, default=240, help="of each run with one slow link [240]")


def _language(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repetitions", type=int, default=5, help="of every arm, in turn [5]")
    parser.add_argument("--rounds", type=int, default=20, help="that are timed of each run [20]")
    parser.add_argument("--threads", type=int, default=1, help="of torch, for DP-SGD [1]")


def _simulation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repetitions", type=int, default=2, help="runs of every arm, in turn [2]")
    parser.add_argument("--model", nargs="+", choices=MODELS, help="[both, but the CNN only with cohort 10]")
    parser.add_argument("--cohort", nargs="+", type=int, choices=COHORTS, help="[10 100]")
    parser.add_argument(
        "--arms", nargs="+", choices=ARMS, default=[arm for arm in ARMS if arm != "fedapp-flower"], help="[all but one]"
    )
    parser.add_argument("--pfl-python", default=sys.executable, help="a Python that has pfl, torch and safetensors")


def _command(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repetitions", type=int, default=3, help="of each command, in turn [3]")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="[both]")
    parser.add_argument("--runs", type=int, default=12, help="of the sweep, 10 rounds each [12]")


def _start(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repetitions", type=int, default=5, help="of each command, in turn, after one to warm up [5]")
    parser.add_argument("--asked", nargs="*", choices=ASKED, default=list(ASKED), help="features [all, if installed]")


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
