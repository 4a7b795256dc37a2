"""What a sweeper optimises: a figure of summary.json, and which way is better."""

import importlib.util
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fedapp.common.errors import ConfigError
from fedapp.config import Config, compose, instantiate
from fedapp.config.options import options_of
from fedapp.config.typed_text import parsed

__all__ = ["check_objective", "direction_of", "is_sweep", "objective_of", "sweeper_direction"]

SWEEPER, DIRECTION = "hydra/sweeper=optuna", "hydra.sweeper.direction="
COSTS = {  # figures of a summary that are no metric: less is better
    *("rounds_to_target", "seconds", "bytes_up", "bytes_down", "rejected", "unused", "excluded", "declined"),
    *("epsilon_max", "epsilon_median", "rounds", "parameters_trained"),
}
PREFIXES = ("test_", "final_val_", "best_")
SPREADS = ("_mean", "_worst_decile")


def direction_of(config: Config) -> str:
    """`minimize` or `maximize`. Raises ConfigError where nobody says which."""
    run = config.run
    if run.direction != "auto":
        return run.direction
    name = str(run.objective)
    lower = _lower_is_better(name)
    if lower is None:
        raise ConfigError(
            f"run.objective={name}: is no figure of which it is known whether less is better; set"
            " run.direction=minimize or maximize"
        )
    return "minimize" if lower else "maximize"


def _lower_is_better(name: str) -> bool | None:
    """None where that is not known. Metrics say it themselves."""
    if name in COSTS:
        return True
    prefix = next((one for one in PREFIXES if name.startswith(one)), None)
    if prefix is None:
        return None
    metric = name.removeprefix(prefix)
    for spread in SPREADS:
        metric = metric.removesuffix(spread)
    if metric == "loss":
        return True
    node = options_of("metric").get(metric)
    if node is None:
        return None
    return bool(instantiate("metric", node, partial=True).func.lower_is_better)


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
