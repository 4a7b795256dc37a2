"""What client-level DP costs in accuracy: experiment=flights_client_dp without DP, at several budgets with a trusted
server and without one, at fixed clipping norms and at one that follows a quantile.

Each run is done in this process, without messages (`fedapp/audit/client_runs.py`).
"""

import statistics
from argparse import Namespace

import torch

from benchmarks.result import Point, Result, Table
from fedapp.audit.client_runs import ClientRun
from fedapp.config import compose
from fedapp.data.shards import Shards
from fedapp.data.source import Examples
from fedapp.learning.build import build_parts, build_shards
from fedapp.models.shared_state import load_shared, shared_state
from fedapp.privacy.client_level.distributed import DistributedClientDp
from fedapp.updates.steps import unflatten

EXPERIMENT = "experiment=flights_client_dp"
DISTRIBUTED = "secure_aggregation=secaggplus secure_aggregation.modulus_bits=16 privacy.max_participations=6"
BUDGETS, NORMS, NORMS_AT = (8, 4, 2), (0.125, 0.25, 0.5, 1.0, 2.0), 4
WITHOUT = "privacy.target_epsilon=null privacy.noise_multiplier=0 privacy.clipping_norm=100"


def run(options: Namespace) -> Result:
    """AUC on the held-out days, of `options.repetitions` seeds from 0 on."""
    title = "AUC on the last days of the year, mean and range over seeds"
    table = Table("arm", "noise multiplier", "AUC", title=title)
    rows, points = [], []
    data = _data(options)
    for name, overrides in arms(options).items():
        found, sigma = [], 0.0
        for seed in range(options.repetitions):
            auc, sigma = _auc(f"{overrides} run.seed={seed}", options, data)
            found.append(auc)
        print(name, f"{sigma:.4f}", [f"{auc:.4f}" for auc in found], flush=True)
        rows.append({"arm": name, "noise_multiplier": sigma, "auc": found})
        points.append(Point("flights by plane", name, tuple(found)))
        shown = f"{statistics.mean(found):.4f} ({min(found):.4f}-{max(found):.4f})"
        table.add_row(name, f"{sigma:.3f}", shown)
    return Result(rows, table, points, "AUC")


def arms(options: Namespace) -> dict[str, str]:
    """By name, the overrides of each."""
    found = {"without DP": WITHOUT}
    found |= {f"trusted server, ε = {budget}": f"privacy.target_epsilon={budget}" for budget in BUDGETS}
    for budget in BUDGETS:
        distributed = f"{DISTRIBUTED} privacy.target_epsilon={budget}"
        found[f"distributed, 16 bits, ε = {budget}"] = distributed
        sigma = _sigma(distributed, options)
        found[f"trusted server, noise multiplier of that, {sigma:.3f}"] = (
            f"privacy.target_epsilon=null privacy.noise_multiplier={sigma}"
        )
    at = f"privacy.target_epsilon={NORMS_AT}"
    found |= {f"trusted server, ε = {NORMS_AT}, norm {norm:g}": f"{at} privacy.clipping_norm={norm}" for norm in NORMS}
    found[f"trusted server, ε = {NORMS_AT}, norm at the median"] = f"{at} privacy.quantile=0.5"
    return found


def _config(overrides: str, options: Namespace):  # type: ignore[no-untyped-def]
    return compose([EXPERIMENT, f"data.sample={options.sample}", *overrides.split()])


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
