"""What client-level DP costs in accuracy: experiment=flights_client_dp without DP, at several budgets with a trusted
server and without one, at fixed clipping norms and at one that follows a quantile.

Each run is done in this process, without messages (`fedapp/audit/client_runs.py`).
"""

import math
import statistics
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from scipy import stats

from benchmarks.client_dp_plot import draw
from benchmarks.result import Point, Result, Table
from fedapp.audit.client_runs import ClientRun
from fedapp.config import compose
from fedapp.data.shards import Shards
from fedapp.data.source import Examples
from fedapp.learning.build import build_parts
from fedapp.learning.build_shards import build_shards
from fedapp.models.shared_state import load_shared, shared_state
from fedapp.privacy.client_level.distributed import DistributedClientDp
from fedapp.updates.steps import unflatten

EXPERIMENT = "experiment=flights_client_dp"
DISTRIBUTED = "secure_aggregation=secaggplus secure_aggregation.modulus_bits=16 privacy.max_participations=6"
BUDGETS, NORMS, NORMS_AT = (8, 4, 2), (0.125, 0.25, 0.5, 1.0, 2.0), 4
ADAPTIVE = ((0.5, 0.5), (0.5, 0.1), (0.2, 0.1))  # quantile and first norm; 0.1 is where Andrew et al. 2021 begin
WITHOUT = "privacy.target_epsilon=null privacy.noise_multiplier=0 privacy.clipping_norm=100"
NONE, TRUSTED, SUMMED, ALIKE = (
    "without DP",
    "trusted server",
    "distributed, 16 bits",
    "trusted server, sigma of distributed",
)
SURE = 0.95


def run(options: Namespace) -> Result:
    """AUC on the held-out days, of `options.repetitions` seeds from 0 on."""
    title = "AUC on the last days of the year, mean and range over seeds"
    table = Table("arm", "noise multiplier", "AUC", title=title)
    rows, points = [], []
    data, found = _data(options), dict[str, list[float]]()
    for name, overrides in arms(options).items():
        found[name], sigma = [], 0.0
        for seed in range(options.repetitions):
            auc, sigma = _auc(f"{overrides} run.seed={seed}", options, data)
            found[name].append(auc)
        print(name, f"{sigma:.4f}", [f"{auc:.4f}" for auc in found[name]], flush=True)
        rows.append({"arm": name, "noise_multiplier": sigma, "auc": found[name]})
        points.append(Point("flights by plane", name, tuple(found[name])))
        shown = f"{statistics.mean(found[name]):.4f} ({min(found[name]):.4f}-{max(found[name]):.4f})"
        table.add_row(name, f"{sigma:.3f}", shown)
    for name, differences in pairs(found).items():
        low, high = interval(differences)
        rows.append({"arm": name, "difference": differences, "low": low, "high": high})
        shown = f"{statistics.mean(differences):+.4f} ({low:+.4f} to {high:+.4f} at {SURE:.0%})"
        table.add_row(name, "", shown)
    return Result(rows, table, points, "AUC", lambda path: plot(path, found))


def arms(options: Namespace) -> dict[str, str]:
    """By name, the overrides of each."""
    found = {NONE: WITHOUT}
    for budget in BUDGETS:
        found[f"{TRUSTED}, ε = {budget}"] = f"privacy.target_epsilon={budget}"
    for budget in BUDGETS:
        distributed = f"{DISTRIBUTED} privacy.target_epsilon={budget}"
        found[f"{SUMMED}, ε = {budget}"] = distributed
        alike = f"privacy.target_epsilon=null privacy.noise_multiplier={_sigma(distributed, options)}"
        found[f"{ALIKE}, ε = {budget}"] = alike
    at = f"privacy.target_epsilon={NORMS_AT}"
    for norm in NORMS:
        found[f"{TRUSTED}, ε = {NORMS_AT}, norm {norm:g}"] = f"{at} privacy.clipping_norm={norm}"
    for quantile, first in ADAPTIVE:
        adaptive = f"{at} privacy.quantile={quantile} privacy.clipping_norm={first}"
        found[f"{TRUSTED}, ε = {NORMS_AT}, {_adaptive(quantile, first)}"] = adaptive
    return found


def pairs(found: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Differences, seed by seed, of what distributed noise and adaptive clipping are to be compared with."""
    named = {
        f"distributed less trusted server at its sigma, ε = {budget}": (
            f"{SUMMED}, ε = {budget}",
            f"{ALIKE}, ε = {budget}",
        )
        for budget in BUDGETS
    }
    fixed = [f"{TRUSTED}, ε = {NORMS_AT}, norm {norm:g}" for norm in NORMS]
    best = max(fixed, key=lambda name: statistics.mean(found[name]))
    for quantile, first in ADAPTIVE:
        adaptive = _adaptive(quantile, first)
        name = f"{adaptive} less {best.rpartition(', ')[2]}, the best fixed"
        named[name] = f"{TRUSTED}, ε = {NORMS_AT}, {adaptive}", best
    apart = {
        name: [one - other for one, other in zip(found[first], found[second], strict=True)]
        for name, (first, second) in named.items()
    }
    every = [one for name, those in apart.items() if name.startswith("distributed") for one in those]
    return {**apart, "distributed less trusted server at its sigma, all": every}


def _adaptive(quantile: float, first: float) -> str:
    return f"norm at quantile {quantile:g} from {first:g}"


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """Student's, of their mean; infinite of a single one."""
    mean, count = statistics.mean(differences), len(differences)
    if count < 2:
        return -math.inf, math.inf
    half = float(stats.t.ppf((1 + SURE) / 2, count - 1)) * statistics.stdev(differences) / math.sqrt(count)
    return mean - half, mean + half


def plot(path: Path, found: Mapping[str, Sequence[float]]) -> None:
    forms = {form: {budget: found[f"{form}, ε = {budget}"] for budget in BUDGETS} for form in (TRUSTED, SUMMED)}
    draw(path, found[NONE], forms)


def _config(overrides: str, options: Namespace):  # type: ignore[no-untyped-def]
    return compose(f"{EXPERIMENT} federation.num_rounds={options.rounds} {overrides}".split())


def _data(options: Namespace) -> tuple[Shards, Examples]:
    """The same for all seeds, since planes are what they are."""
    config = _config("", options)
    parts = build_parts(config)
    shards, test = build_shards(config, parts, None), parts.source.test()
    shards.load()
    assert test is not None
    return shards, test


def _sigma(overrides: str, options: Namespace) -> float:
    config = _config(overrides, options)
    parts = build_parts(config)
    privacy = ClientRun(config, parts, build_shards(config, parts, None)).privacy
    assert isinstance(privacy, DistributedClientDp)
    return privacy.noised_integers(config, parts).multiplier


def _auc(overrides: str, options: Namespace, data: tuple[Shards, Examples]) -> tuple[float, float]:
    """And the noise multiplier of the run."""
    config = _config(overrides, options)
    parts = build_parts(config)
    made = ClientRun(config, parts, data[0])
    size = sum(value.numel() for value in made.template.values())
    *_, last = made.released(torch.zeros(0, size), torch.zeros(0, dtype=torch.bool))
    load_shared(parts.model, {**shared_state(parts.model), **unflatten(last, made.template)})
    judged = parts.task.evaluate(parts.whole, data[1])
    assert judged is not None
    return judged.metrics["auc"], float(made.privacy.summary(config, parts)["noise_multiplier"])
