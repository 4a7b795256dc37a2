"""How the commands of scripts/deploy look and end."""

import signal
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence

from fedapp.common.errors import ConfigError, DataError, FedappError

__all__ = ["ended_by_signals", "ignore_signals", "parser", "run_command", "say"]

Command = Callable[[Sequence[str]], int]


def parser(description: str | None, epilog: str) -> ArgumentParser:
    """A parser for the command that `description` opens with, as in `scripts/deploy/run: starts a run`."""
    name, _, what = (description or "").partition(": ")
    return ArgumentParser(prog=name, description=what, epilog=epilog, formatter_class=RawDescriptionHelpFormatter)


def say(line: str) -> None:
    print(line, flush=True)


def ended_by_signals() -> None:
    """Make a closed terminal or a `kill` end this program as Ctrl-C does, so that it clears up."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


def ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def run_command(command: Command, arguments: Sequence[str]) -> int:
    """The exit status: 2 for what cannot work as asked, 1 for what failed on the way, each in one message."""
    ended_by_signals()
    try:
        return command(arguments)
    except FedappError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2 if isinstance(error, ConfigError | DataError) else 1
    except KeyboardInterrupt:
        say("stopped")
        return 130
