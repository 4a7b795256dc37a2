"""Codecs of updates outside a run: what each test of them needs."""

import numpy as np
import torch
from torch import Tensor

from fedapp.updates.drive import Drive
from fedapp.updates.own_levels import OwnLevels
from fedapp.updates.per_reply import PerReply
from fedapp.updates.summed_levels import SummedLevels
from fedapp.updates.top_k import LargestValues

__all__ = ["PER_REPLY", "decoded", "summed", "vectors"]

PER_REPLY: dict[str, PerReply] = {
    **{f"quantise {bits}": OwnLevels(bits=bits) for bits in (8, 4, 2, 1)},
    "drive": Drive(),
    "top_k": LargestValues(share=0.1, error_feedback=True),
}


def vectors() -> dict[str, Tensor]:
    """Of 1000 values: normally distributed, heavy-tailed, two large values among small ones, and layers of very
    different sizes."""
    random = np.random.default_rng(0)
    spikes = np.full(1000, 1e-3)
    spikes[[17, 600]] = 3.0, -1.0
    found = {
        "normal": random.normal(size=1000),
        "heavy tails": random.standard_t(2, 1000),
        "two spikes": spikes,
        "layers": np.concatenate([random.normal(0, 1e-3, 900), random.normal(0, 1, 100)]),
    }
    return {name: torch.from_numpy(values.astype(np.float32)) for name, values in found.items()}


def decoded(codec: PerReply, vector: Tensor, seed: int) -> Tensor:
    sent = codec.seeded(seed).on_client(vector, 1.0, {}, {})
    return codec.on_reply(sent, 1.0, {"length": len(vector)})


def summed(step: SummedLevels, vectors: list[Tensor], weights: list[float], seeds: list[int]) -> Tensor:
    """What a server makes of the sum of these clients' levels."""
    length = len(vectors[0]) + len(step.scalars)
    largest = max(weights) * len(weights) / sum(weights)
    params = {**step.plan(1), **step.plan_weights(largest), "length": length}
    total = torch.zeros(length, dtype=torch.float64)
    for vector, weight, seed in zip(vectors, weights, seeds, strict=True):
        full = torch.cat([vector, torch.zeros(len(step.scalars))])
        total += step.seeded(seed).on_client(full, weight, params, {}).double()
    return step.on_total(total, sum(weights), range(len(vectors)), params, 0.0)[: len(vectors[0])]
