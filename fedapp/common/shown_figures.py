"""The figures of a round that are shown at a terminal: by the server's log, and by whoever follows the run."""

from collections.abc import Mapping
from typing import Any

__all__ = ["shown_figures"]


def shown_figures(metrics: Mapping[str, Any]) -> list[str]:
    """Each as text: those of the server's test data, else of the validation splits; what was clipped, and what a
    trusted server has spent.

    `metrics`: a line of metrics.jsonl.
    """
    names = [name for name in metrics if name.startswith("test_")] or [n for n in metrics if n.startswith("val_")]
    shown = [f"{name} {value:.4f}" for name in names if (value := metrics[name]) is not None]
    if clipped := metrics.get("clipped"):
        shown.append(f"clipped {100 * clipped:.3g} %")
    if metrics.get("epsilon_unamplified") is not None:
        seen = metrics["epsilon_unamplified"]
        shown.append(f"epsilon {metrics['epsilon_max']:.3f} ({seen:.3f} for who sees the cohort)")
    return shown
