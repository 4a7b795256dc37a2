"""A comparison as tables of text: what the terminal shows, the docs hold, and a script checks."""

from collections.abc import Mapping
from typing import Any

__all__ = ["cost_rows", "gain_rows", "remarks", "site_rows"]

Rows = tuple[list[str], list[list[str]]]  # titles, and cells by row


def site_rows(result: Mapping[str, Any]) -> Rows:
    """A row a site, a column an arm; then the server's test data, mean, worst site and variance."""
    arms = [arm["name"] for arm in result["arms"]]
    rows = []
    for site in [*result["sites"], *([result["test"]] if result["test"] else [])]:
        cells = [_cell(result["figures"][arm].get(site["name"])) for arm in arms]
        rows.append([site["name"], f"{site['trained_on']:,}", f"{site['held_out']:,}", *cells])
    rows.append(["mean of sites", "", "", *(_cell(result["summary"][arm]["mean"]) for arm in arms)])
    worst = [result["summary"][arm]["worst"] for arm in arms]
    rows.append(["worst site", "", "", *(f"{one['value']:.3f} {one['site']}" if one else "-" for one in worst)])
    spread = [result["summary"][arm]["variance"] for arm in arms]
    rows.append(["deviation over sites", "", "", *("-" if one is None else f"{one**0.5:.3f}" for one in spread)])
    return ["site", "trained on", "held out", *arms], rows


def gain_rows(result: Mapping[str, Any]) -> Rows:
    """A row a site, a column an arm: by how much it is better than being alone; * where that is beyond chance."""
    arms = list(result["gains"])
    rows = []
    for site in result["sites"]:
        found = [result["gains"][arm]["sites"].get(site["name"]) for arm in arms]
        rows.append([site["name"], *(_gain(one) for one in found)])
    rows.append(["mean of sites", *(_gain(result["gains"][arm]["mean"]) for arm in arms)])
    short = [result["to_pooled"].get(arm, {}).get("mean") for arm in arms]
    rows.append(["mean, over pooled", *("" if one is None else _gain(one) for one in short)])
    return ["gain over alone", *arms], rows


def cost_rows(result: Mapping[str, Any]) -> Rows:
    """What each arm takes, per seed; of `alone`, all sites together."""
    rows = [
        [
            arm["name"],
            f"{arm['steps']:,.0f}" if arm["steps"] else "not told",
            f"{arm['bytes'] / 2**20:.2f} MiB",
            f"{arm['seconds']:.1f} s",
            "-" if arm["epsilon"] is None else f"{arm['epsilon']:.2f}",
        ]
        for arm in result["arms"]
    ]
    return ["arm", "gradient steps", "sent", "time", "ε"], rows


def remarks(result: Mapping[str, Any]) -> list[str]:
    """Whatever is odd with a site, or with a site in an arm."""
    found = [f"{site['name']}: {text}" for site in result["sites"] for text in site["remarks"]]
    arms: dict[tuple[str, str], list[str]] = {}
    for one in result["arms"]:
        figures = result["figures"][one["name"]]
        for name, cell in figures.items():
            for text in dict.fromkeys([*cell["said"], *one["remarks"].get(name, [])]):
                arms.setdefault((name, text), []).append(one["name"])
    for (name, text), those in arms.items():
        where = "" if len(those) == len(result["arms"]) else f", {' and '.join(those)}"
        if f"{name}: {text}" not in found:
            found.append(f"{name}{where}: {text}")
    found += [f"{one['name']}: {text}" for one in result["arms"] for text in one["notes"]]
    plain = next(one["steps"] for one in result["arms"] if one["name"] == "federated")
    return found + [
        f"{one['name']}: takes {one['steps']:,.0f} gradient steps, where the federated arm takes {plain:,.0f}"
        for one in result["arms"]
        if one["owner"] == "federated" and one["steps"] not in (0, plain)
    ]


def _cell(cell: Mapping[str, Any] | None) -> str:
    if cell is None or cell["value"] is None:
        return "-"
    if cell["low"] is None:
        return f"{cell['value']:.3f}"
    return f"{cell['value']:.3f} ({cell['low']:.3f}-{cell['high']:.3f})"


def _gain(gain: Mapping[str, Any] | None) -> str:
    if gain is None or gain["value"] is None:
        return "-"
    star = "*" if gain.get("p_holm") is not None and gain["p_holm"] < 0.05 else ""
    range_ = "" if gain["low"] is None else f" ({gain['low']:+.3f} to {gain['high']:+.3f})"
    return f"{gain['value']:+.3f}{star}{range_}"
