"""Several run directories side by side: what each is, what came of it, and in what their configs differ."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedapp.common.errors import FedappError
from fedapp.common.nested import leaves
from fedapp.report.read import RunData, number, read_run
from fedapp.report.series import by_round, headline_metric
from fedapp.report.units import bytes_text, number_text, seconds_text, title_of

__all__ = ["COLUMNS", "FoundRun", "chosen", "find_runs"]

COLUMNS = ("name", "task", "status", "rounds", "metric", "ε", "bytes", "time", "differs in")
# Of a config, what says nothing of what a run computes.
OF_THE_PLACE = {"run.output_dir", "run.resume", "run.name", "run.live", "run.num_supernodes", "run.engine"}


@dataclass(frozen=True)
class FoundRun:
    """`name`: of the run's config, or else its folder's below the one that was searched. `differs`: by key, its value
    where the runs beside it have another."""

    name: str
    data: RunData
    differs: Mapping[str, Any]

    @property
    def status(self) -> str:
        return str(self.data.summary.get("status") or "unfinished")

    @property
    def metric(self) -> str:
        """The main metric after the last round, by name; "-" where nobody measured any."""
        name = headline_metric(self.data)
        for key in (f"test_{name}", f"val_{name}"):
            if values := by_round(self.data, key).values:
                last = number(self.data.summary.get(key))
                return f"{title_of(str(name))} {number_text(values[-1] if last is None else last)}"
        return "-"

    def cells(self) -> tuple[str, ...]:
        """As `COLUMNS` are."""
        summary, rounds = self.data.summary, self.data.rounds
        spent = number(summary.get("epsilon_max")) or number((rounds[-1] if rounds else {}).get("epsilon_max"))
        moved = sum(sum(by_round(self.data, key).values) for key in ("bytes_up", "bytes_down"))
        seconds = number(summary.get("seconds"))
        seconds = sum(by_round(self.data, "seconds").values) if seconds is None else seconds
        task = self.data.config.get("task")
        return (
            self.name,
            str(task.get("name")) if isinstance(task, dict) else "-",
            self.status,
            str(rounds[-1]["round"]) if rounds else "0",
            self.metric,
            "-" if spent is None else number_text(spent),
            bytes_text(moved),
            seconds_text(seconds),
            " ".join(f"{key}={value}" for key, value in self.differs.items()),
        )


def find_runs(folder: Path) -> tuple[list[FoundRun], list[str]]:
    """The runs at any depth below `folder`, or `folder` itself, oldest first, and what is wrong with others."""
    found, faults = [], []
    for config in sorted(folder.rglob("config.yaml"), key=lambda path: (path.stat().st_mtime, str(path))):
        if not (config.parent / "metrics.jsonl").exists():
            continue
        try:
            data = read_run(config.parent)
        except FedappError as error:
            faults.append(str(error))
            continue
        found.append(FoundRun(_name(data, folder.resolve()), data, {}))
    return with_differences(found), faults


def chosen(runs: Sequence[FoundRun], names: Collection[str]) -> list[FoundRun]:
    """The runs of these names, or of folders called so; all where there are none. Raises FedappError for a name that no
    run has."""
    if not names:
        return list(runs)
    for name in names:
        if not any(name in (run.name, run.data.path.name) for run in runs):
            raise FedappError(f"--only {name}: no run is called so; there are {', '.join(run.name for run in runs)}")
    return with_differences([run for run in runs if {run.name, run.data.path.name} & set(names)])


def with_differences(runs: Sequence[FoundRun]) -> list[FoundRun]:
    """The same with what each has that others of them do not."""
    flat = [dict(leaves(run.data.config)) for run in runs]
    keys = sorted(set().union(*flat)) if flat else []
    differing = [key for key in keys if key not in OF_THE_PLACE and len({str(one.get(key)) for one in flat}) > 1]
    return [
        replace(run, differs={key: one[key] for key in differing if key in one})
        for run, one in zip(runs, flat, strict=True)
    ]


def _name(data: RunData, folder: Path) -> str:
    section = data.config.get("run")
    name = section.get("name") if isinstance(section, dict) else None
    return str(name or data.path.relative_to(folder) if data.path != folder else name or data.path.name)
