"""The picture of a comparison: each site's figure in every arm, with its interval."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from fedapp.report.canvas import COLORS, legend, new_axes

__all__ = ["comparison_plot"]

_MARKS = (
    *(
        ("muted", "s"),
        ("ink", "D"),
        ("blue", "o"),
        ("vermillion", "^"),
        ("green", "v"),
        ("purple", "P"),
        ("orange", "X"),
    ),
    *(("sky", "<"),),
)
MOST_ARMS = len(_MARKS)


def comparison_plot(result: Mapping[str, Any]) -> Figure:
    """A row for each site and for the mean, a mark for each arm (the first ones, where there are many)."""
    arms = [arm["name"] for arm in result["arms"]][:MOST_ARMS]
    sites = [*result["sites"], *([result["test"]] if result["test"] else [])]
    names = [*(site["name"] for site in sites), "mean of sites"]
    figure, axes = new_axes("", xlabel=result["metric"], grid=False)
    figure.set_size_inches(8.0, 1.2 + 0.22 * len(names) * max(2, len(arms)) ** 0.8)
    axes.grid(axis="x", color=COLORS["grid"], linewidth=0.8)
    for number, arm in enumerate(arms):
        color, mark = _MARKS[number]
        cells = [result["figures"][arm].get(site["name"]) for site in sites] + [result["summary"][arm]["mean"]]
        shift = 0.7 * ((number + 0.5) / len(arms) - 0.5)
        points = [(cell, place + shift) for place, cell in enumerate(cells) if cell and cell["value"] is not None]
        for cell, height in points:
            if cell["low"] is not None:
                axes.plot([cell["low"], cell["high"]], [height] * 2, color=COLORS[color], linewidth=1.2, alpha=0.7)
        xs, ys = [cell["value"] for cell, _ in points], [height for _, height in points]
        axes.plot(xs, ys, linestyle="none", marker=mark, markersize=5, color=COLORS[color], label=arm)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.axhline(len(names) - 1.5, color=COLORS["grid"], linewidth=0.8)
    legend(figure, axes)
    return figure
