"""Plots of runs in which clients have speeds: what was reached when, by how many bytes, and who was at work."""

import math
from itertools import accumulate

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from fedapp.report.canvas import COLORS, as_share, legend, new_axes
from fedapp.report.client_plots import MOST_ROWS
from fedapp.report.read import Record, RunData, number
from fedapp.report.series import headline_metric
from fedapp.report.units import bytes_unit, client_label, client_order, title_of

__all__ = ["MOST_JOBS", "gantt", "metric_by_bytes", "metric_by_virtual_time"]

MOST_JOBS = 1000  # bars: more make the page slow, and cannot be told apart
_OUTCOMES = (("used", "blue"), ("not used", "sky"), ("rejected or lost", "vermillion"))


def metric_by_virtual_time(run: RunData) -> Figure | None:
    """The headline metric on the server's test data over virtual seconds."""
    return _over(run, [number(line.get("virtual_seconds")) for line in run.rounds], "virtual seconds")


def metric_by_bytes(run: RunData) -> Figure | None:
    """The same over bytes, of runs that have virtual time or steps without a cohort."""
    if not any("staleness_mean" in line for line in run.rounds):
        return None
    sent = [(number(line.get("bytes_up")) or 0.0) + (number(line.get("bytes_down")) or 0.0) for line in run.rounds]
    totals = list(accumulate(sent))
    unit, size = bytes_unit(totals[-1])
    return _over(run, [total / size for total in totals], f"{unit}, both ways")


def _over(run: RunData, places: list[float | None], xlabel: str) -> Figure | None:
    name = headline_metric(run)
    values = [number(line.get(f"test_{name}")) for line in run.rounds]
    if run.rounds and run.rounds[0]["round"] == 0 and any(place is not None for place in places):
        places = [0.0, *places[1:]]  # the initial model has cost nothing
    points = [(x, y) for x, y in zip(places, values, strict=True) if x is not None and y is not None]
    if name is None or len(points) < 2:
        return None
    figure, axes = new_axes(title_of(name), xlabel=xlabel)
    axes.plot(*zip(*points, strict=True), color=COLORS["blue"], linewidth=2, label="test set of the server")
    if name == "accuracy":
        as_share(axes)
    legend(figure, axes)
    return figure


def gantt(run: RunData) -> Figure | None:
    """A row for each client, a bar for each time it was asked, from the question to the end of its work."""
    jobs = [line for line in run.clients if number(line.get("ended_at")) is not None and line.get("client") is not None]
    jobs = sorted(jobs, key=lambda line: (line["asked_at"], client_order(line["client"])))[:MOST_JOBS]
    clients = sorted({line["client"] for line in jobs}, key=client_order)[:MOST_ROWS]
    if not jobs:
        return None
    row = {client: index for index, client in enumerate(clients)}
    is_virtual = any("virtual_seconds" in line for line in run.rounds)
    figure, axes = new_axes("client", xlabel="virtual seconds" if is_virtual else "seconds", grid=False)
    for outcome, color in _OUTCOMES:
        for client in clients:
            mine = [line for line in jobs if line["client"] == client and _outcome(line) == outcome]
            bars = [(line["asked_at"], line["ended_at"] - line["asked_at"]) for line in mine]
            axes.broken_barh(
                bars, (row[client] - 0.4, 0.8), facecolor=COLORS[color], edgecolor=COLORS["surface"], linewidth=0.4
            )
    step = math.ceil(len(clients) / 20)
    axes.set_yticks(range(0, len(clients), step), [client_label(client) for client in clients[::step]], fontsize=8.5)
    axes.set_ylim(len(clients) - 0.5, -0.5)
    axes.set_xlim(left=0)
    there = {_outcome(line) for line in jobs}
    legend(figure, axes, [Patch(color=COLORS[color], label=label) for label, color in _OUTCOMES if label in there])
    return figure


def _outcome(line: Record) -> str:
    return "rejected or lost" if line.get("rejected") else "not used" if line.get("unused") else "used"
