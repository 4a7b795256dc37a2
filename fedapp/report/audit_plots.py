"""The pictures of an audit: ROC curves, proven beside accounted epsilon, and what gradient inversion has found."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from torch import Tensor

from fedapp.report.canvas import COLORS, legend, new_axes

__all__ = ["epsilons", "reconstructions", "roc"]

_LINES = ("vermillion", "orange", "green", "blue", "purple", "sky")
_LOWEST_RATE = 1e-3


def roc(title: str, curves: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """One attack in each arm: true over false positive rate, both logarithmic: few sure hits matter."""
    figure, axes = new_axes("members found", xlabel="strangers taken for members")
    for (name, (false, true)), color in zip(curves.items(), _LINES * len(curves), strict=False):
        axes.plot(
            false.clamp(min=_LOWEST_RATE), true.clamp(min=_LOWEST_RATE), label=name, color=COLORS[color], linewidth=2
        )
    axes.plot([_LOWEST_RATE, 1], [_LOWEST_RATE, 1], color=COLORS["muted"], linestyle=":", linewidth=1.2)
    axes.set(xscale="log", yscale="log", xlim=(_LOWEST_RATE, 1), ylim=(_LOWEST_RATE, 1.05))
    axes.set_title(title, color=COLORS["ink"], fontsize=10.5, loc="left")
    legend(figure, axes)
    return figure


def epsilons(points: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    """By attack, (accounted, proven) epsilon of each arm with privacy: all must lie below the diagonal."""
    figure, axes = new_axes("at least (proven by the attack)", xlabel="ε at most (by the accountant)")
    largest = max((max(pair) for pairs in points.values() for pair in pairs), default=1.0) * 1.1
    axes.plot([0, largest], [0, largest], color=COLORS["muted"], linestyle=":", linewidth=1.2)
    for (name, pairs), color in zip(points.items(), _LINES * len(points), strict=False):
        ordered = sorted(pairs)
        axes.plot(
            [accounted for accounted, _ in ordered],
            [proven for _, proven in ordered],
            label=name,
            color=COLORS[color],
            marker="o",
            linewidth=1.5,
        )
    axes.set(xlim=(0, largest), ylim=(-0.02 * largest, largest))
    axes.legend(frameon=False, fontsize=8.5, labelcolor=COLORS["ink"], loc="upper left")
    return figure


def reconstructions(truth: Tensor, found: Mapping[str, Tensor]) -> Figure | None:
    """A row of the true images (B, channels, height, width), below them what was found in each arm. None for tables."""
    if truth.dim() != 4:
        return None
    rows = {"true": truth, **found}
    figure = Figure(
        figsize=(1.5 + 1.1 * len(truth), 1.15 * len(rows)), layout="constrained", facecolor=COLORS["surface"]
    )
    low, high = float(truth.min()), float(truth.max())
    for row, (name, images) in enumerate(rows.items()):
        for column, image in enumerate(images):
            axes = figure.add_subplot(len(rows), len(truth), row * len(truth) + column + 1)
            shown = ((image.float() - low) / (high - low)).clamp(0, 1).permute(1, 2, 0)
            axes.imshow(shown.squeeze(-1).numpy(), cmap="gray_r", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if column == 0:
                axes.set_ylabel(name, rotation=0, ha="right", va="center", color=COLORS["ink"], fontsize=10)
    return figure
