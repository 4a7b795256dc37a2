"""The figures of a round that are shown at a terminal: by the server's log, and by whoever follows the run."""

from collections.abc import Mapping
from typing import Any

__all__ = ["shown_figures"]


def shown_figures(metrics: Mapping[str, Any]) -> list[str]:
    """Each as text: those of the server's test data, else of the validation splits; and what was clipped.

    `metrics`: a line of metrics.jsonl.
    """
    names = [name for name in metrics if name.startswith("test_")] or [n for n in metrics if n.startswith("val_")]
    shown = [f"{name} {value:.4f}" for name in names if (value := metrics[name]) is not None]
    if clipped := metrics.get("clipped"):
        shown.append(f"clipped {100 * clipped:.3g} %")
    if (epsilon := metrics.get("epsilon")) is not None:
        shown.append(f"epsilon {epsilon:.3f}")
    return shown
