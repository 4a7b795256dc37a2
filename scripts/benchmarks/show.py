"""A result on the terminal, as JSON, and as a plot."""

import argparse
import json
import platform
import statistics
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.result import Result, Table
from fedapp.common.cores import allowed_cores

__all__ = ["save", "show"]

PACKAGES = ("torch", "flwr", "ray", "opacus", "pfl")


def show(table: Table, options: argparse.Namespace) -> None:
    if options.markdown:
        print(f"{table.title}:\n\n{table.markdown()}\n")
    else:
        Console().print(table.rich())
    about = _about(options)
    packages = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    repeated = f", {options.repetitions} repetitions" if hasattr(options, "repetitions") else ""
    print(
        f"{about['date']}, {about['machine']}, {about['cores']} cores, Python {about['python']}, {packages}{repeated}"
    )


def save(result: Result, options: argparse.Namespace) -> None:
    if options.json:
        content = {"benchmark": options.benchmark, **_about(options), "rows": result.rows}
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if options.plot and result.draw is not None:
        result.draw(options.plot)
    elif options.plot:
        _draw(result, options.plot, options.benchmark)


def _about(options: argparse.Namespace) -> dict[str, Any]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    chosen = {name: value for name, value in vars(options).items() if name not in ("benchmark", "json", "plot")}
    return {
        "date": date.today().isoformat(),
        "machine": platform.machine(),
        "cores": allowed_cores(),
        "python": platform.python_version(),
        "versions": found,
        "options": {name: str(value) if isinstance(value, Path) else value for name, value in chosen.items()},
    }


def _draw(result: Result, path: Path, title: str) -> None:
    """A line for every case, a dot for every arm's median with its range."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    cases = list(dict.fromkeys(point.case for point in result.points))
    arms = list(dict.fromkeys(point.arm for point in result.points))
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.25 * len(cases) * (len(arms) + 1)), layout="constrained")
    for number, arm in enumerate(arms):
        mine = [point for point in result.points if point.arm == arm]
        heights = [cases.index(point.case) + (number + 0.5) / (len(arms) + 1) for point in mine]
        medians = [statistics.median(point.values) for point in mine]
        low = [median - min(point.values) for median, point in zip(medians, mine, strict=True)]
        high = [max(point.values) - median for median, point in zip(medians, mine, strict=True)]
        axes.errorbar(medians, heights, xerr=[low, high], fmt="o", label=arm, capsize=3)
    axes.set_yticks([number + 0.4 for number in range(len(cases))], cases)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel=result.unit, title=f"{title}: median and range")
    axes.grid(axis="x", which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)
