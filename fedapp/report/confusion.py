"""The confusion matrix of the final model on the server's test data."""

import numpy as np
from matplotlib.figure import Figure

from fedapp.report.canvas import COLORS, SIZE, new_axes
from fedapp.report.read import RunData
from fedapp.report.units import client_label

__all__ = ["MOST_NUMBERS", "confusion_plot"]

MOST_NUMBERS = 12  # classes for which each cell shows its count
_MOST_LABELS = 30
_DARK = 0.6  # of a row: from here on a cell is dark enough for light text


def confusion_plot(run: RunData) -> Figure | None:
    """Rows are true classes, columns predicted ones. The shade is the share of the row, the number the count."""
    counts = np.asarray(run.summary.get("confusion_matrix") or [], dtype=float)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.sum() > 0:
        return None
    labels = [client_label(label) for label in run.summary.get("classes") or range(len(counts))]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure, axes = new_axes("true class", xlabel="predicted class", grid=False)
    figure.set_size_inches(SIZE[0], max(SIZE[1], SIZE[0] * 0.75))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    if len(labels) <= _MOST_LABELS:
        axes.set_xticks(range(len(labels)), labels, rotation=0 if len(labels) <= MOST_NUMBERS else 90)
        axes.set_yticks(range(len(labels)), labels)
    if len(labels) <= MOST_NUMBERS:
        for (row, column), share in np.ndenumerate(shares):
            color = COLORS["surface"] if share > _DARK else "#1f2329"  # a cell keeps its shade in dark mode
            text = f"{counts[row, column]:.0f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=9, color=color)
    return figure
