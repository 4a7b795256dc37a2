"""The plots of learning and of its cost. Each returns a Figure, or None where the run has no data for it."""

from collections.abc import Sequence
from itertools import accumulate

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedapp.report.canvas import COLORS, as_share, legend, new_axes, round_axis
from fedapp.report.read import RunData, number
from fedapp.report.series import Series, by_round, epsilon_by_round, headline_metric, validation
from fedapp.report.units import bytes_unit, title_of

__all__ = ["bytes_by_round", "loss_by_round", "metric_by_round", "privacy_by_round", "seconds_by_round"]

_PHASES = (
    ("seconds_clients", "waiting for clients", "blue"),
    ("seconds_aggregate", "aggregating", "orange"),
    ("seconds_evaluate", "evaluating", "green"),
    ("seconds_checkpoint", "checkpoint", "purple"),
    ("seconds_other", "other", "muted"),
)
_MOST_MARKERS = 40
_MOST_BARS = 60
_MOST_CLIENTS = 100


def metric_by_round(run: RunData) -> Figure | None:
    """Accuracy, or the task's first other metric, of the global model after each round."""
    name = headline_metric(run)
    if name is None:
        return None
    lines = [
        ("test set of the server", by_round(run, f"test_{name}"), "blue", "-"),
        ("clients' validation data", validation(run, name), "green", "-"),
    ]
    if name == "accuracy":
        lines.insert(1, ("balanced", by_round(run, "test_balanced_accuracy"), "sky", "--"))
        lines.insert(2, ("AUC", by_round(run, "test_auc"), "purple", "--"))
    return _lines(title_of(name), lines, share=name == "accuracy")


def loss_by_round(run: RunData) -> Figure | None:
    """Loss of the global model after each round, and of the local models while they train in it."""
    lines = [
        ("test set of the server", by_round(run, "test_loss"), "blue", "-"),
        ("clients' validation data", validation(run, "loss"), "green", "-"),
        ("local training", by_round(run, "train_loss"), "purple", "--"),
    ]
    return _lines("loss", lines, share=False)


def bytes_by_round(run: RunData) -> Figure | None:
    """Bytes sent to and received from all clients, added up over the rounds."""
    down, up = by_round(run, "bytes_down"), by_round(run, "bytes_up")
    if not down and not up:
        return None
    totals = [Series(series.rounds, tuple(accumulate(series.values))) for series in (down, up)]
    unit, size = bytes_unit(sum(total.values[-1] for total in totals if total))
    scaled = [Series(total.rounds, tuple(value / size for value in total.values)) for total in totals]
    labels = (("server to clients", "blue"), ("clients to server", "orange"))
    stack = [(label, series, color) for (label, color), series in zip(labels, scaled, strict=True)]
    return _stack(f"{unit}, all rounds so far", stack)


def seconds_by_round(run: RunData) -> Figure | None:
    """Where the wall-clock time of each round went, stacked."""
    phases = [(label, by_round(run, key), color) for key, label, color in _PHASES]
    if not any(series for _, series, _ in phases):
        phases = [("whole round", by_round(run, "seconds"), "blue")]
    return _stack("seconds", phases)


def privacy_by_round(run: RunData) -> Figure | None:
    """The epsilon spent so far by each client, by the one that spent most, and by the median client."""
    spent = epsilon_by_round(run)
    if not spent:
        return None
    rounds = tuple(next(iter(spent.values())).rounds)
    by_index = list(zip(*(series.values for series in spent.values()), strict=True))
    figure = _lines(
        "ε spent",
        [
            ("most of any client", Series(rounds, tuple(map(max, by_index))), "vermillion", "-"),
            ("median client", Series(rounds, tuple(sorted(v)[len(v) // 2] for v in by_index)), "blue", "--"),
        ],
        share=False,
    )
    if figure is not None:
        axes = figure.axes[0]
        for number, series in enumerate(list(spent.values())[:_MOST_CLIENTS]):
            label = "each client" if number == 0 else None
            axes.plot(
                series.rounds, series.values, label=label, color=COLORS["muted"], linewidth=0.8, alpha=0.5, zorder=1
            )
        for text in figure.legends:
            text.remove()
        legend(figure, axes)
        _mark_budget(axes, run)
        axes.set_ylim(bottom=0)
    return figure


def _mark_budget(axes: Axes, run: RunData) -> None:
    privacy = run.config.get("privacy")
    budget = number(privacy.get("target_epsilon")) if isinstance(privacy, dict) else None
    if budget is not None:
        axes.axhline(budget, color=COLORS["muted"], linewidth=1.2, linestyle=":")
        right = axes.get_yaxis_transform()  # x as a share of the axes, y in data
        axes.text(0, budget, " budget", transform=right, ha="left", va="bottom", color=COLORS["muted"], fontsize=9.5)


def _lines(ylabel: str, lines: Sequence[tuple[str, Series, str, str]], *, share: bool) -> Figure | None:
    """One line for each (label, series, colour, style) that has points."""
    lines = [line for line in lines if line[1]]
    if not lines:
        return None
    figure, axes = new_axes(ylabel)
    for label, series, color, style in lines:
        axes.plot(
            series.rounds,
            series.values,
            label=label,
            color=COLORS[color],
            linestyle=style,
            linewidth=2,
            marker="o" if len(series.rounds) <= _MOST_MARKERS else "",
            markersize=4.5,
            markeredgecolor=COLORS["surface"],
            markeredgewidth=0.8,
        )
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    if share:
        as_share(axes)
    round_axis(axes, [index for _, series, _, _ in lines for index in series.rounds])
    legend(figure, axes)
    return figure


def _stack(ylabel: str, parts: Sequence[tuple[str, Series, str]]) -> Figure | None:
    """Bars by round, one part of each bar for each (label, series, colour) that is not zero throughout."""
    bottom = {index: 0.0 for _, series, _ in parts for index in series.rounds}
    if not bottom:
        return None
    figure, axes = new_axes(ylabel)
    for label, series, color in parts:
        if any(series.values):
            base = [bottom[index] for index in series.rounds]
            bottom |= {index: bottom[index] + value for index, value in zip(series.rounds, series.values, strict=True)}
            top = [bottom[index] for index in series.rounds]
            if len(bottom) <= _MOST_BARS:
                axes.bar(series.rounds, series.values, bottom=base, width=0.72, label=label, color=COLORS[color])
            else:  # bars that touch would show seams
                axes.fill_between(series.rounds, base, top, step="mid", label=label, color=COLORS[color], linewidth=0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    round_axis(axes, sorted(bottom), blocks=True)
    legend(figure, axes)
    return figure
