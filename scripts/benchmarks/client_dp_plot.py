"""AUC against epsilon: with a trusted server and without one, and the run without DP as a line."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["draw"]


def draw(path: Path, without: Sequence[float], forms: Mapping[str, Mapping[float, Sequence[float]]]) -> None:
    """`without`: AUC of each seed without DP; `forms`: by name and epsilon, of each seed."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    axes.axhspan(min(without), max(without), color="0.9")
    axes.axhline(statistics.mean(without), color="0.4", linestyle="--", label="without DP")
    for number, (name, by_epsilon) in enumerate(forms.items()):
        budgets = sorted(by_epsilon)
        means = [statistics.mean(by_epsilon[budget]) for budget in budgets]
        low = [mean - min(by_epsilon[budget]) for budget, mean in zip(budgets, means, strict=True)]
        high = [max(by_epsilon[budget]) - mean for budget, mean in zip(budgets, means, strict=True)]
        shifted = [budget * 1.03**number for budget in budgets]  # so that bars do not cover each other
        axes.errorbar(shifted, means, yerr=[low, high], marker="o", capsize=3, label=name)
    ticks = sorted({budget for by_epsilon in forms.values() for budget in by_epsilon})
    axes.set(xscale="log", xlabel="epsilon of each client over the run", ylabel="AUC, mean and range over seeds")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)
