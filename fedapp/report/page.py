"""The report: one HTML file that needs no network, and its plots as PNG files beside it."""

import os
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from fedapp.report.by_label import labels_table
from fedapp.report.canvas import to_png, to_svg
from fedapp.report.cards import cards
from fedapp.report.gallery import PLOT_NAMES, Plot, draw_plots
from fedapp.report.party_plot import parties_table
from fedapp.report.read import Record, RunData, read_run
from fedapp.report.tables import clients_table, privacy_table, rejections_table, rounds_table, warnings_table
from fedapp.report.template import PAGE, render

__all__ = ["write_report"]

_GOOD = {"completed", "done", "finished", "ok", "success", "succeeded"}
_BAD = {"crashed", "error", "failed", "failure"}


@dataclass(frozen=True)
class _Drawing:
    """A plot as the page shows it."""

    name: str
    title: str
    caption: str
    wide: bool
    svg: Markup


def write_report(run_dir: Path) -> Path:
    """Write `report.html` and `plots/*.png` into `run_dir`, from its other files alone; returns the page's path.

    The same files give the same page, byte for byte. Raises FedappError where `run_dir` is no run directory.
    """
    run = read_run(run_dir)
    plots = draw_plots(run)
    folder = run.path / "plots"
    folder.mkdir(exist_ok=True)
    for name in set(PLOT_NAMES) - {plot.name for plot in plots}:
        (folder / f"{name}.png").unlink(missing_ok=True)  # of an earlier report on files that have changed since
    for plot in plots:
        to_png(plot.figure, folder / f"{plot.name}.png", dpi=160)
    page = run.path / "report.html"
    draft = page.with_suffix(".html.tmp")
    draft.write_text(_render(run, plots), encoding="utf-8")
    os.replace(draft, page)  # a reader sees the old page or the new one, never half of it
    return page


def _render(run: RunData, plots: tuple[Plot, ...]) -> str:
    status, mood, reason = _status(run)
    return render(
        PAGE,
        title=_title(run),
        run=run.path.name,
        status=status,
        mood=mood,
        reason=reason,
        cards=cards(run),
        plots=[_drawing(plot) for plot in plots],
        warnings=warnings_table(run),
        parties=parties_table(run),
        labels=labels_table(run),
        privacy=privacy_table(run),
        rounds=rounds_table(run),
        rejections=rejections_table(run),
        clients=clients_table(run),
        config=run.config_text,
        facts=_facts(run),
    )


def _drawing(plot: Plot) -> _Drawing:
    svg = to_svg(plot.figure, name=plot.name, alt=f"{plot.title}. {plot.caption}")
    return _Drawing(plot.name, plot.title, plot.caption, plot.wide, Markup(svg))  # to_svg escapes what it is given


def _status(run: RunData) -> tuple[str, str, str]:
    """The status, how to colour it, and the reason to show beside it."""
    if not run.summary:
        return "unfinished", "fair", "no summary.json: the run is still going or was killed"
    status = str(run.summary.get("status") or "unknown")
    mood = "good" if status.lower() in _GOOD else "bad" if status.lower() in _BAD else "fair"
    return status, mood, str(run.summary.get("stop_reason") or "")


def _title(run: RunData) -> str:
    """Model and data by the names that the config gives them, as far as it does."""
    names = [_name(run.config.get(section)) for section in ("model", "data")]
    return " on ".join(name for name in names if name) or "Federated learning"


def _name(section: object) -> str:
    if isinstance(section, dict):
        return str(section.get("name") or str(section.get("_target_") or "").rpartition(".")[2])
    return section if isinstance(section, str) else ""


def _facts(run: RunData) -> list[tuple[str, str]]:
    """What it takes to compare this run with another."""
    versions = run.summary.get("versions")
    facts: Record = {key: run.summary.get(key) for key in ("model_sha256", "parameters")}
    facts = {**facts, **(versions if isinstance(versions, dict) else {})}
    return [(str(name), str(value)) for name, value in facts.items() if value is not None]
