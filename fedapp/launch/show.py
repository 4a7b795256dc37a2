"""What a person sees at the terminal: a bar while it runs, a summary after it, a table after a sweep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from fedapp.common.shown_figures import shown_figures

__all__ = ["Finished", "RoundBar", "say_error", "show_summary", "show_sweep"]


@dataclass(frozen=True)
class Finished:
    """One run of this call: what was asked for, where it is, what came of it. `error` is None where all went well."""

    overrides: Sequence[str]
    directory: Path
    summary: Mapping[str, Any]
    error: str | None


def say_error(console: Console, error: str) -> None:
    console.print(f"error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)


def say_warning(console: Console, text: str) -> None:
    console.print(f"warning: {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)


class RoundBar:
    """A progress bar over rounds with the latest figure; on anything but a terminal, a line a round."""

    def __init__(self, console: Console, num_rounds: int) -> None:
        self._console, self._num_rounds = console, num_rounds
        self._warned: set[str] = set()  # kinds: each is said once
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figure]}"))
        self._progress = Progress(*columns, TimeElapsedColumn(), console=console, transient=True)
        self._task: TaskID = self._progress.add_task("starting SuperNodes", total=num_rounds, figure="")

    def __enter__(self) -> "RoundBar":
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, figures: Mapping[str, Any]) -> None:
        """Show one line of metrics.jsonl."""
        shown = "  ".join(shown_figures(figures))
        for kind, text in (figures.get("warnings") or {}).items():
            if kind not in self._warned:
                self._warned.add(kind)
                say_warning(self._console, f"round {figures['round']}: {text}")
        where = f"round {figures['round']}/{self._num_rounds}"
        if self._console.is_terminal:
            self._progress.update(self._task, completed=figures["round"], description=where, figure=shown)
        else:
            self._console.print(f"{where}  {shown}", highlight=False)


def _figure(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name.startswith("bytes"):
        return f"{value / 2**20:.2f} MiB"
    if name == "seconds":
        return f"{value:.1f} s"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def show_summary(console: Console, summary: Mapping[str, Any], directory: Path) -> None:
    """The figures of one run, and where its report lies."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(overflow="fold")
    fixed = ("status", "stop_reason", "rounds", "clients", "rejected", "bytes_up", "bytes_down", "seconds")
    for name in summary:
        if name in fixed or name.startswith(("test_", "final_", "model_sha256")):
            table.add_row(name, _figure(name, summary[name]))
    if privacy := summary.get("privacy"):
        spent = [_figure("", summary[f"epsilon_{which}"]) for which in ("max", "median")]
        table.add_row("epsilon", f"{spent[0]} at most, {spent[1]} median, of a budget of {privacy['target_epsilon']}")
        names = ("delta", "accountant", "noise_multiplier", "sample_rate", "steps_per_round")
        table.add_row("privacy of", privacy["unit"])
        table.add_row("", ", ".join(f"{name} {_short(privacy.get(name))}" for name in names))
        if summary.get("declined"):
            table.add_row("declined", f"{summary['declined']} clients, whose privacy budget is spent")
    for who, why in (summary.get("faults") or {}).items():
        table.add_row("left out", escape(f"{who}: {why}"))
    console.print(table)
    for text in summary.get("warnings", []):
        say_warning(console, text)
    console.print(f"report  {directory / 'report.html'}", soft_wrap=True, highlight=False)


def show_sweep(console: Console, runs: Sequence[Finished]) -> None:
    """One row a run: the overrides in which the runs differ, and the figures."""
    shared = set.intersection(*(set(run.overrides) for run in runs))
    names = list(dict.fromkeys(name for run in runs for name in run.summary if name.startswith("test_")))
    table = Table(*("run", "overrides", "status", "rounds", *names, "seconds"))
    for number, run in enumerate(runs):
        own = " ".join(item for item in run.overrides if item not in shared)
        figures = [_figure(name, run.summary.get(name)) for name in ("rounds", *names, "seconds")]
        table.add_row(str(number), escape(own), "failed" if run.error else "finished", *figures)
    console.print(table)
