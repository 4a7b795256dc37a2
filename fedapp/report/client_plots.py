"""The plots of the clients. Each returns a Figure, or None where the run has no data for it."""

import math
from collections import Counter

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from fedapp.report.canvas import COLORS, as_share, legend, new_axes, round_axis
from fedapp.report.read import RunData, number
from fedapp.report.series import (
    Participation,
    by_round,
    client_metric,
    client_values,
    final_values,
    lower_is_better,
    participation,
    worst_first,
)
from fedapp.report.units import client_label, title_of

__all__ = ["MOST_BARS", "MOST_ROWS", "final_by_client", "participation_plot", "spread_by_round"]

MOST_BARS = 40  # clients shown one by one in `final_by_client`; more become a histogram
MOST_ROWS = 100  # clients shown one by one in `participation_plot`
# Blue and vermillion, a hair off: an image has the same colours in dark mode too, and so must its legend.
_TOOK_PART, _REJECTED, _UNUSED = "#0072b3", "#d55e01", "#56b4ea"


def spread_by_round(run: RunData) -> Figure | None:
    """How far apart the clients are: mean, worst tenth, middle half, and full range of what they report."""
    name = client_metric(run)
    if name is None:
        return None
    values = client_values(run, f"val_{name}")
    rounds = tuple(values)
    low, lower, upper, high = np.array([np.quantile(values[index], (0, 0.25, 0.75, 1)) for index in rounds]).T
    figure, axes = new_axes(title_of(name))
    marker = "o" if len(rounds) <= MOST_BARS else ""
    if len(rounds) == 1:  # a band of one round would have no width
        axes.vlines(rounds, low, high, color=COLORS["blue"], alpha=0.35, linewidth=2, label="all clients")
        axes.vlines(rounds, lower, upper, color=COLORS["blue"], alpha=0.35, linewidth=9, label="middle half")
    else:
        axes.fill_between(rounds, low, high, color=COLORS["blue"], alpha=0.12, linewidth=0, label="all clients")
        axes.fill_between(rounds, lower, upper, color=COLORS["blue"], alpha=0.25, linewidth=0, label="middle half")
    means, worst = _means(run, name, values), _worst_tenths(run, name, values)
    for points, label, color in ((means, "mean", "blue"), (worst, "worst tenth", "vermillion")):
        axes.plot(rounds, points, color=COLORS[color], linewidth=2, marker=marker, markersize=4.5, label=label)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    if name == "accuracy":
        as_share(axes)
    round_axis(axes, rounds)
    legend(figure, axes)
    return figure


def final_by_client(run: RunData) -> Figure | None:
    """The final model on each client's validation data: sorted bars, or a histogram of many clients."""
    name = client_metric(run)
    values = final_values(run, f"val_{name}")
    if name is None or not values:
        return None
    mean = number(run.summary.get(f"final_val_{name}_mean"))
    mean = float(np.mean(list(values.values()))) if mean is None else mean
    if len(values) > MOST_BARS:
        figure, axes = new_axes("clients", xlabel=f"final {title_of(name)} on a client's validation data")
        axes.hist(list(values.values()), bins=24, color=COLORS["blue"], edgecolor=COLORS["surface"], linewidth=0.8)
        axes.axvline(mean, color=COLORS["vermillion"], linewidth=2, linestyle="--", label="mean over clients")
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    else:
        figure, axes = new_axes(f"final {title_of(name)}", xlabel="client")
        ranked = sorted(values, key=lambda client: values[client], reverse=lower_is_better(run, name))
        axes.bar(range(len(ranked)), [values[client] for client in ranked], width=0.72, color=COLORS["blue"])
        labels = [client_label(client) for client in ranked]
        slanted = max(map(len, labels)) > 3
        axes.set_xticks(range(len(ranked)), labels, rotation=60 if slanted else 0)
        axes.tick_params(axis="x", labelsize=8 if len(labels) > 20 else 10)
        slack = max(0, 6 - len(ranked)) / 2  # a few bars stay slender
        axes.set_xlim(-0.7 - slack, len(ranked) - 0.3 + slack)
        axes.axhline(mean, color=COLORS["vermillion"], linewidth=2, linestyle="--", label="mean over clients")
    if name == "accuracy":
        as_share(axes, axis="x" if len(values) > MOST_BARS else "y")
    legend(figure, axes)
    return figure


def participation_plot(run: RunData) -> Figure | None:
    """Who took part in which round, and who was rejected; for many clients, how often they took part."""
    parts = participation(run)
    if not parts.rounds or not (parts.accepted or parts.rejected or parts.unused):
        return None
    return _heatmap(parts) if len(parts.clients) <= MOST_ROWS else _counts(parts)


def _heatmap(parts: Participation) -> Figure:
    clients, rounds = parts.clients, parts.rounds
    row = {client: index for index, client in enumerate(clients)}
    image = np.zeros((len(clients), len(rounds), 4))
    image[:] = (*to_rgba(COLORS["muted"])[:3], 0.13)
    for cells, color in ((parts.unused, _UNUSED), (parts.accepted, _TOOK_PART), (parts.rejected, _REJECTED)):
        for client, index in cells:
            if index in rounds:
                image[row[client], index - rounds[0]] = to_rgba(color)
    figure, axes = new_axes("client", grid=False)
    edges = (rounds[0] - 0.5, rounds[-1] + 0.5, len(clients) - 0.5, -0.5)
    axes.imshow(image, aspect="auto", interpolation="none", extent=edges)
    _gaps(axes, rounds, len(clients))
    step = math.ceil(len(clients) / 20)
    axes.set_yticks(range(0, len(clients), step), [client_label(client) for client in clients[::step]], fontsize=8.5)
    round_axis(axes, rounds, blocks=True)
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)
    names = [("took part", _TOOK_PART), ("rejected", _REJECTED), ("not asked", COLORS["grid"])]
    names[2:2] = [("asked, not used", _UNUSED)] if parts.unused else []
    legend(figure, axes, [Patch(color=color, label=label) for label, color in names])
    return figure


def _gaps(axes: Axes, rounds: tuple[int, ...], clients: int) -> None:
    """Thin lines between the cells, as long as the cells are large enough to spare them."""
    if len(rounds) <= 60 and clients <= 40:
        axes.set_xticks(np.arange(rounds[0] - 0.5, rounds[-1] + 1), minor=True)
        axes.set_yticks(np.arange(-0.5, clients), minor=True)
        axes.grid(which="minor", color=COLORS["surface"], linewidth=1.5)
        axes.tick_params(which="minor", length=0)
        axes.set_axisbelow(False)


def _counts(parts: Participation) -> Figure:
    taken = Counter(client for client, _ in parts.accepted)
    refused = {client for client, _ in parts.rejected}
    groups = [
        ("never rejected", "blue", [taken[client] for client in parts.clients if client not in refused]),
        ("rejected at least once", "vermillion", [taken[client] for client in parts.clients if client in refused]),
    ]
    groups = [group for group in groups if group[2]]
    most = max(max(counts) for _, _, counts in groups)
    width = math.ceil((most + 1) / 30)
    figure, axes = new_axes("clients", xlabel="rounds taken part in")
    axes.hist(
        [counts for _, _, counts in groups],
        bins=np.arange(-0.5, most + width + 0.5, width).tolist(),
        stacked=True,
        rwidth=0.85,
        color=[COLORS[color] for _, color, _ in groups],
        label=[label for label, _, _ in groups],
    )
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    legend(figure, axes)
    return figure


def _means(run: RunData, name: str, values: dict[int, tuple[float, ...]]) -> list[float]:
    """The mean over clients, as the run recorded it where it did."""
    return _recorded(run, name, "mean", {index: float(np.mean(values[index])) for index in values})


def _worst_tenths(run: RunData, name: str, values: dict[int, tuple[float, ...]]) -> list[float]:
    """The mean over the worst tenth of the clients, at least one, as the run recorded it where it did."""
    ranked = {index: worst_first(run, name, values[index]) for index in values}
    computed = {index: float(np.mean(ranked[index][: math.ceil(len(ranked[index]) / 10)])) for index in ranked}
    return _recorded(run, name, "worst_decile", computed)


def _recorded(run: RunData, name: str, statistic: str, computed: dict[int, float]) -> list[float]:
    recorded = by_round(run, f"val_{name}_{statistic}", shift=-1)
    points = computed | dict(zip(recorded.rounds, recorded.values, strict=True))
    final = number(run.summary.get(f"final_val_{name}_{statistic}"))
    if final is not None and run.final:
        points[run.final[-1]["round"]] = final
    return [points[index] for index in computed]
