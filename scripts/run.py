#!/usr/bin/env python3
"""Run a simulation: check the config, run the rounds in processes of this machine, show the summary.

    python scripts/run.py                                          the defaults of conf/config.yaml
    python scripts/run.py data=breast_cancer model=mlp federation.num_rounds=10
    python scripts/run.py -m optimizer.lr=0.05,0.1 run.seed=0,1     a sweep, one run directory each
    python scripts/run.py -m hydra/sweeper=optuna 'optimizer.lr=interval(0.01,1)' run.objective=test_loss     tune it
    python scripts/run.py data=csv data.path=t.csv data.label=y --check     say what is in the data, and stop there
    python scripts/run.py --resume RUN_DIR                          go on with a run, by its own overrides
    python scripts/run.py --config my.yaml federation.num_rounds=9  settings from a file of your own, then others
    python scripts/run.py --cfg job                                 show the config; --help shows the groups

The last line printed is `run_dir=<absolute path>`. The exit status is 0 only if every run finished.
"""

import os
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

# OpenBLAS starts its threads when NumPy is imported, and a process that has threads cannot be forked safely.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, whatever else is installed

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console

from fedapp.common.errors import ConfigError, FedappError
from fedapp.config import as_typed, by_group, compose, file_overrides
from fedapp.launch.objective import is_sweep, objective_of, sweeper_direction
from fedapp.launch.resume_arguments import resumed_arguments
from fedapp.launch.show import Finished, say_error, show_sweep
from fedapp.launch.show_findings import check_only
from fedapp.launch.simulate import Launcher

console = Console(stderr=False)
finished: list[Finished] = []
only_check = False
NO_RUN = ("--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i", "--version")  # they write nothing


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
def job(config: DictConfig) -> float | None:
    """Returns the objective to whichever sweeper asks for one; None is a failed trial."""
    settings = HydraConfig.get()
    directory = Path(settings.runtime.output_dir)
    run = partial(check_only, console) if only_check else launcher.run
    finished.append(run(list(settings.overrides.task), directory))
    if finished[-1].error is not None or only_check:
        return None
    try:
        return objective_of(config.run.objective, finished[-1].summary)
    except ConfigError as error:
        finished[-1] = replace(finished[-1], error=str(error))
        say_error(console, str(error))
        return None


def check_outputs(arguments: Sequence[str]) -> None:
    """Hydra makes a folder for each run below ./outputs; what keeps it from that it tells by a traceback."""
    if any(argument.startswith(("hydra.run.dir=", "hydra.sweep.dir=", *NO_RUN)) for argument in arguments):
        return
    folder = Path("outputs")
    made = folder if folder.exists() else Path()
    if not made.is_dir() or not os.access(made, os.W_OK | os.X_OK):
        why = "is a file" if made.is_file() else "is not yours to write"
        raise ConfigError(
            f"{made.absolute()}: {why}, and there the run's output would go; start from a folder of your own, or set"
            " hydra.run.dir=/a/folder/of/your/own"
        )


def own_options(arguments: list[str]) -> tuple[bool, list[str]]:
    """Whether to check only, and the arguments with the settings of --config FILE before all others."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False, usage="python scripts/run.py [--config FILE] ...")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--config", type=Path, action="append", default=[])
    given, rest = parser.parse_known_args(arguments)
    return given.check, [*(one for path in given.config for one in file_overrides(path)), *rest]


def main() -> int:
    global only_check
    try:
        only_check, given = own_options(sys.argv[1:])
        sweeps = not {"-m", "--multirun"}.isdisjoint(given)
        arguments = sys.argv[1:] = by_group(as_typed(resumed_arguments(given), sweeps=sweeps))
        if sweeps:
            fixed = [one for one in arguments if not one.startswith(("-", "hydra")) and not is_sweep(one)]
            sys.argv[1:] = arguments = [*arguments, *sweeper_direction(arguments, fixed)]
        # Says what is wrong in fewer words than Hydra would; hydra.* settings are for this process only.
        if not any(argument.startswith("-") for argument in arguments):
            compose([argument for argument in arguments if not argument.startswith("hydra.")])
        check_outputs(arguments)
        job()
        written = launcher.finish()
    except FedappError as error:
        console.print(f"error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print("stopped", style="bold red")
        return 130
    if len(finished) > 1:
        show_sweep(console, finished)
    if finished and finished[-1].directory.exists():  # not after a refusal, which leaves nothing
        print(f"run_dir={finished[-1].directory}", flush=True)
    return int(not written or any(run.error for run in finished))


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal or a `kill` must end the SuperLink, too
        signal.signal(number, signal.default_int_handler)
    with Launcher(console) as launcher:
        status = main()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # what remains is clearing up, which must not be cut short
    sys.exit(status)
