"""What a sweeper optimises: a figure of summary.json, and which way is better."""

import importlib.util
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fedapp.common.errors import ConfigError
from fedapp.config import Config, compose
from fedapp.config.typed_text import parsed
from fedapp.server.objective_figure import direction_of

__all__ = ["check_objective", "is_sweep", "objective_of", "sweeper_direction"]

SWEEPER, DIRECTION = "hydra/sweeper=optuna", "hydra.sweeper.direction="


def is_sweep(argument: str) -> bool:
    """Whether an override stands for several values."""
    found = parsed(argument)
    return found is not None and found.is_sweep_override()


def sweeper_direction(arguments: Sequence[str], fixed: Sequence[str]) -> list[str]:
    """What Optuna's sweeper needs to be told beside `arguments`: the objective's direction. `fixed`: those of them
    that are the same for every trial. Raises ConfigError where there is no objective, or the arguments name the other
    direction."""
    if SWEEPER not in arguments:
        return []
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError(f"{SWEEPER}: is not installed; install it by `pip install -e .[optuna]`")
    config = compose(fixed)
    if config.run.objective is None:
        raise ConfigError(
            f"{SWEEPER}: needs to know what to optimise; add run.objective=<a figure of summary.json>, such as"
            " run.objective=test_accuracy"
        )
    direction = direction_of(config)
    given = [argument.removeprefix(DIRECTION) for argument in arguments if argument.startswith(DIRECTION)]
    if any(one != direction for one in given):
        raise ConfigError(
            f"{DIRECTION}{given[0]}: run.objective={config.run.objective} is to {direction}; leave it out, or set"
            f" run.direction={given[0]}"
        )
    return [] if given else [f"{DIRECTION}{direction}"]


def check_objective(config: Config) -> None:
    """Refuse, before anything starts, an objective whose direction nobody knows."""
    if config.run.objective is not None:
        direction_of(config)


def objective_of(objective: str | None, summary: Mapping[str, Any]) -> float | None:
    """The figure of a finished run; None where none is asked for. Raises ConfigError where the summary has none."""
    if objective is None:
        return None
    value = summary.get(objective)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        figures = [name for name, found in summary.items() if isinstance(found, int | float)]
        said = f"is {value}" if objective in summary else f"there is none; it has {', '.join(figures)}"
        raise ConfigError(f"run.objective={objective}: in summary.json {said}")
    return float(value)
