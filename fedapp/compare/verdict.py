"""What follows from a comparison, in words."""

from collections.abc import Mapping
from typing import Any

__all__ = ["verdict"]

SURE = 0.05


def verdict(result: Mapping[str, Any], arm: str = "federated") -> str:
    """Of `arm` against being alone and against all data pooled."""
    gains = result["gains"].get(arm)
    if gains is None:
        return f"Nothing follows: {result['metric']} of {arm} or of being alone is defined at no site."
    sites, total = gains["sites"], len(result["sites"])
    better = [name for name, gain in sites.items() if gain["value"] > 0]
    worse = [name for name, gain in sites.items() if gain["value"] < 0]
    text = f"By {result['metric']}, {arm} beats alone at {len(better)} of {total} sites{_of_them_sure(sites, better)}"
    if len(sites) < total:
        left = [site["name"] for site in result["sites"] if site["name"] not in sites]
        text += f" ({_names(left)} cannot be judged)"
    text += "".join(f"; {name} loses {_loss(sites[name])}" for name in worse[:3])
    if len(worse) > 3:
        text += f"; {len(worse) - 3} more lose"
    text += f". On average it gains {_figure(gains['mean'])} over alone"
    if (pooled := result["to_pooled"].get(arm)) is not None:
        mean = pooled["mean"]
        way = "better" if mean["value"] >= 0 else "worse"
        text += f", and is {abs(mean['value']):.3f} {way} than all data pooled{_range(mean)}"
    return f"{text}."


def _of_them_sure(sites: Mapping[str, Any], better: list[str]) -> str:
    sure = [name for name in better if (sites[name]["p_holm"] or 1.0) < SURE]
    return f", {len(sure)} of them beyond chance" if better else ""


def _loss(gain: Mapping[str, Any]) -> str:
    inside = gain["high"] is not None and gain["high"] >= 0
    return f"{-gain['value']:.3f}, {'within' if inside else 'beyond'} its interval"


def _figure(figure: Mapping[str, Any]) -> str:
    return f"{figure['value']:+.3f}{_range(figure)}"


def _range(figure: Mapping[str, Any]) -> str:
    return "" if figure["low"] is None else f" ({figure['low']:+.3f} to {figure['high']:+.3f})"


def _names(names: list[str]) -> str:
    return f"{', '.join(names[:3])}{' and more' if len(names) > 3 else ''}"
