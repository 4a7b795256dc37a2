"""Median stopping (Golovin et al., "Google Vizier", 2017): a trial that is worse than most were is ended early.

The rule reads the run directories beside its own, and keeps nothing: a resumed trial is judged as it was before.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from fedapp.common.errors import ConfigError, FedappError
from fedapp.config import Config
from fedapp.report.read import RunData, number, read_run
from fedapp.server.objective_figure import direction_of, round_figure

__all__ = ["MedianPruning", "pruning_of"]

FEWEST = 5  # trials that a median is taken of, as in Optuna's MedianPruner
SAID = "pruned: "


@dataclass(frozen=True)
class MedianPruning:
    """From round `after` on a trial ends whose best `figure` so far is worse than the median that the trials before it
    had in the same round. Trials are the runs in the folders beside `directory` that judge the same data by the same
    objective; those that count have ended, and were not pruned themselves."""

    directory: Path
    figure: str
    lower_is_better: bool
    after: int

    def reason(self, server_round: int) -> str | None:
        """Why the trial ends after `server_round`, or None."""
        if server_round < self.after:
            return None
        own = read_run(self.directory)
        values = [value for line in own.rounds if (value := number(line.get(self.figure))) is not None]
        others = [value for value in self._others(own, server_round) if value is not None]
        if not values or len(others) < FEWEST:
            return None
        best, middle = (min if self.lower_is_better else max)(values), median(others)
        if best == middle or (best < middle) == self.lower_is_better:
            return None
        return (
            f"{SAID}{self.figure} {best:.4g} is worse than {middle:.4g}, the median of {len(others)} trials after round"
            f" {server_round} (run.prune)"
        )

    def _others(self, own: RunData, server_round: int) -> Iterator[float | None]:
        for place in sorted(self.directory.parent.iterdir()):
            if place == self.directory or not (place / "summary.json").exists():
                continue
            try:
                trial = read_run(place)
            except FedappError:  # damaged: no trial to go by
                continue
            said = trial.summary
            over = said.get("status") == "finished" and not str(said.get("stop_reason")).startswith(SAID)
            if over and _judges(trial.config) == _judges(own.config):
                yield from (number(line.get(self.figure)) for line in trial.rounds if line["round"] == server_round)


def _judges(config: Mapping[str, Any]) -> tuple[Any, ...]:
    """What must be the same for two runs' figures to be compared."""
    run = config.get("run")
    return config.get("task"), config.get("data"), run.get("objective") if isinstance(run, dict) else None


def pruning_of(config: Config) -> MedianPruning | None:
    """None where `run.prune` is null. Raises ConfigError where it cannot be judged what it asks for."""
    run = config.run
    if run.prune is None:
        return None
    figure, lower = round_figure(config), direction_of(config) == "minimize"
    if run.output_dir is None:
        raise ConfigError(
            f"run.prune={run.prune}: there are no trials beside a run whose run.output_dir is null; start it by"
            " scripts/run.py -m"
        )
    return MedianPruning(Path(run.output_dir), figure, lower, run.prune)
