"""`run.objective`, a figure of summary.json that a sweeper optimises: its direction, and the figure of a round."""

from fedapp.common.errors import ConfigError
from fedapp.config import Config, instantiate
from fedapp.config.options import options_of

__all__ = ["direction_of", "round_figure"]

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


def round_figure(config: Config) -> str:
    """The figure of a line of metrics.jsonl that the objective is at the end. Raises ConfigError where there is
    none."""
    name = config.run.objective
    if name is None or not name.startswith(("test_", "final_val_")):
        raise ConfigError(
            f"run.prune={config.run.prune}: judges trials by a figure of each round, which run.objective={name} is not;"
            " set run.objective to one that begins with test_ or final_val_, or run.prune=null"
        )
    return name.removeprefix("final_")


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
