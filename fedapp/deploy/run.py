"""scripts/deploy/run: a run on a deployed federation, checked before and followed to its end."""

import secrets
import tempfile
from argparse import ArgumentParser
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import yaml
from rich.console import Console

from fedapp.common.errors import ConfigError
from fedapp.config import compose
from fedapp.deploy import terminal
from fedapp.deploy.folders import Operator, read_operator
from fedapp.launch.attend import attend
from fedapp.launch.check import absolute_paths
from fedapp.launch.follow import FollowedRun
from fedapp.launch.local_superlink import Connection, flower_environment, write_connection
from fedapp.launch.show import Finished
from fedapp.server.build import output_directory
from fedapp.server.check_config import check_directory, check_run

__all__ = ["Prepared", "main", "prepare", "run_prepared", "with_seed"]

EXAMPLE = """Example:
  scripts/deploy/run --folder federation/operator data=csv data.label=outcome ... federation.num_rounds=20
Run it on the SuperLink's machine, as the user who runs the SuperLink: the results are written by the SuperLink, and go
to run.output_dir, or to outputs/ below this folder. With --remote they stay on the SuperLink's machine, in
run.output_dir or in ~/fedapp-runs there. The last line printed is run_dir=<absolute path>."""


def default_directory() -> Path:
    """A new run directory below the current folder, as scripts/run.py names them."""
    return Path("outputs", f"{datetime.now():%Y-%m-%d}", f"{datetime.now():%H-%M-%S-%f}").absolute()


@dataclass(frozen=True)
class Prepared:
    """A run that was checked: its overrides as they are sent, and where it goes. `done`: rounds that it has behind it.

    `directory` is the run directory, or, for a run that is not `here`, just the place for what the server prints.
    """

    overrides: Sequence[str]
    sent: Sequence[str]
    directory: Path
    num_rounds: int
    done: int = -1
    here: bool = True


def with_seed(overrides: Sequence[str], *, remote: bool = False) -> list[str]:
    """`overrides` with a seed: the one they give, that of the run they go on with, or a new one. Runs on devices must
    not begin with the same model: what they reveal of it together would be more than a sum. Raises ConfigError."""
    found = list(overrides)
    if any(item.lstrip("+").startswith("run.seed=") for item in found):
        return found
    config = compose(overrides)
    if config.run.resume is not None:
        if remote:
            raise ConfigError("run.seed: to go on with a run that is elsewhere, give its seed; its config.yaml has it")
        saved = output_directory(config, default_directory()) / "config.yaml"
        if saved.exists():
            return [*found, f"run.seed={int(yaml.safe_load(saved.read_text(encoding='utf-8'))['run']['seed'])}"]
    return [*found, f"run.seed={secrets.randbelow(1 << 31)}"]


def prepare(overrides: Sequence[str], *, remote: bool = False) -> Prepared:
    """Raises FedappError, with nothing started and nothing written, for a run that cannot work."""
    config = compose(overrides)
    if remote:  # what files it names are on another machine
        return Prepared(overrides, overrides, default_directory(), config.federation.num_rounds, here=False)
    sent = [*overrides, *absolute_paths(config)]
    config = compose(sent)
    directory = output_directory(config, default_directory())
    done = check_directory(check_run(config), directory)
    return Prepared(overrides, sent, directory, config.federation.num_rounds, done)


def run_prepared(console: Console, operator: Operator, home: Path, prepared: Prepared) -> Finished:
    """The run, on the federation that `operator` reaches; `home` is for Flower's own files. A failed one is shown."""
    settings = {"address": operator.control, "root-certificates": str(operator.authority)}
    write_connection(home, settings)
    connection = Connection(home, flower_environment(home))
    run = FollowedRun(connection, prepared.directory, prepared.sent, here=prepared.here)
    follow, rounds = partial(run.follow, after=prepared.done), prepared.num_rounds
    return attend(console, run, follow, prepared.overrides, prepared.directory, num_rounds=rounds)


def parser() -> ArgumentParser:
    made = terminal.parser(__doc__, EXAMPLE)
    made.add_argument("--folder", type=Path, required=True, help="the operator's folder, from provision")
    made.add_argument("--remote", action="store_true", help="the SuperLink is on another machine: results stay there")
    made.add_argument("--live", action="store_true", help="serve a page on this machine that shows the run")
    made.add_argument("overrides", nargs="*", help="key=value, as scripts/run.py takes them")
    return made


def main(arguments: Sequence[str]) -> int:
    given = parser().parse_intermixed_args(arguments)
    if given.live and given.remote:
        raise ConfigError(
            "--live: shows the run directory, which with --remote is on the SuperLink's machine; start"
            " the run there, or leave one of them out"
        )
    operator = read_operator(given.folder.absolute())
    prepared = prepare(with_seed(given.overrides, remote=given.remote), remote=given.remote)
    with tempfile.TemporaryDirectory(prefix="fedapp-operator-") as home, ExitStack() as stack:
        if given.live:
            from fedapp.launch.live.beside import live_page

            terminal.say(f"live page  {stack.enter_context(live_page(prepared.directory))}")
        run = run_prepared(Console(), operator, Path(home), prepared)
    terminal.say(f"run_dir={run.directory}")
    return int(run.error is not None)
