"""The update step of central client-level DP (McMahan et al. 2018): clients clip, the server clips what it sees of
single clients once more, and adds noise to the sum, once.

One client in or out changes a round's sum by `unit` times the clipping norm at most, in L2: its update is scaled to
that norm less what fixed-point rounding can add. The clipping norm may follow a quantile of the updates' norms (Andrew
et al. 2021): then a client also sends b - 1/2, where b says whether its update was within the norm.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedapp.privacy.client_level.metric_sums import MetricSums
from fedapp.privacy.client_level.norm import norm_of, within
from fedapp.privacy.noise import make_noise
from fedapp.updates.step import StepState, UpdateRejected, UpdateStep
from fedapp.wire.instruction import Params

__all__ = ["CentralNoise", "CentralStep", "NormQuantile"]

NORM = "clipping-norm"
WITHIN = "within"  # the scalar b - 1/2
HALF = 0.5
SLACK = 1e-9
FIXED_POINT = 2.0**-43  # how far an entry of a sum is rounded (`aggregation/exact_sum.py`)
LARGEST_NORM = 2.0**20  # entries of an update are smaller, and the sum of all is
LEAST_ROOM = 100  # times what rounding adds, below which no norm falls


@dataclass(frozen=True)
class NormQuantile:
    """Adaptive clipping: `target` is the share of updates that is to lie within the norm, `rate` the step of the
    geometric update, `noise` the standard deviation of the noise on the count."""

    target: float
    rate: float
    noise: float


@dataclass(frozen=True)
class CentralNoise:
    """`multiplier`: of the noise on updates, in clipping norms. `unit`, `expected`: as of `Sampling`."""

    multiplier: float
    unit: float
    expected: float
    quantile: NormQuantile | None = None
    source: str = "os_entropy"
    metrics: MetricSums | None = None

    @property
    def joint(self) -> float:
        """The noise multiplier of update, bit and metrics together: Gaussian mechanisms on the same sample are one, on
        their vectors side by side, each in units of its own noise (Andrew et al. 2021, theorem 1)."""
        others = [2 * self.quantile.noise] if self.quantile is not None else []
        others += [self.metrics.multiplier] if self.metrics is not None else []
        each = [self.multiplier, *others]
        return 1 / math.hypot(*(1 / sigma for sigma in each)) if all(each) else 0.0

    @property
    def without_metrics(self) -> float | None:
        """What `multiplier` would be if no metrics were paid for; None where none are."""
        if self.metrics is None:
            return None
        return (self.multiplier**-2 + self.metrics.multiplier**-2) ** -0.5 if self.multiplier else 0.0


class CentralStep(UpdateStep):
    """`trained` (n,) bool: which entries of the vector are; the others are zero, and get no noise."""

    bounded = True

    def __init__(self, noise: CentralNoise, clipping_norm: float, trained: Tensor) -> None:
        self.noise, self.clipping_norm = noise, float(clipping_norm)
        self._bits = 0 if noise.quantile is None else 1
        self.scalars = (WITHIN,) * self._bits + (noise.metrics.scalars if noise.metrics is not None else ())
        self._used = clipping_norm  # by the last round
        self._size, self._untrained = len(trained), _runs(~trained)
        self._share: float | None = None
        self._means: dict[str, float | None] = {}
        self._rounds = 0

    @property
    def name(self) -> str:
        return "client-dp"

    @property
    def room(self) -> float:
        """By how much, in L2, rounding to fixed point may move one client's update."""
        return FIXED_POINT / self.noise.unit * math.sqrt(self._size)

    def plan(self, server_round: int) -> Params:
        return {NORM: self.clipping_norm}

    def on_client(self, vector: Tensor, weight: float, params: Params, state: StepState) -> Tensor:
        """The clipped update, whether it was within the norm, and the metrics."""
        update, scalars = self._parts(vector)
        norm = self._norm(params)
        bits = scalars[: self._bits]
        bits = torch.full_like(bits, HALF if norm_of(update) <= norm else -HALF) if self._bits else bits
        only_trained = self._only_trained(update, in_place=True)  # `vector` is made for the steps
        clipped = within(only_trained, norm - self.room, in_place=True)
        if not len(scalars):
            return clipped
        return torch.cat([clipped, bits, self._metrics(scalars)])

    def on_reply(self, vector: Tensor, weight: float, params: Params) -> Tensor:
        """A single update is clipped again, whatever its client has done. Of a SuperNode that hosts several, as in
        simulations, the sum is checked: honest clients' cannot be larger."""
        update, scalars = self._parts(vector)
        if weight == 1:
            clipped = within(self._only_trained(update), self._norm(params) - self.room)
            if not len(scalars):
                return vector if clipped is update else clipped
            bits = scalars[: self._bits]  # written so that NaN becomes a number
            return torch.cat([clipped, torch.where(bits > 0, HALF, -HALF).to(bits), self._metrics(scalars)])
        largest = weight * self._norm(params) * (1 + SLACK)
        bits_possible = bool((scalars[: self._bits].abs() <= weight * HALF * (1 + SLACK)).all())
        if not norm_of(update) <= largest or not bits_possible or not self._metrics_possible(scalars, weight):
            raise UpdateRejected("a sum that is larger than clipped updates can make it")
        return vector

    def on_total(
        self, vector: Tensor, weight: float, survivors: Collection[int], params: Params, rounding: float
    ) -> Tensor:
        """The sum with noise, in every round, an empty one too."""
        update, scalars = self._parts(vector)
        noise, norm, unit = make_noise(self.noise.source, self._rounds), self._norm(params), self.noise.unit
        self._rounds, self._used = self._rounds + 1, norm
        noised = noise.added(update, self.noise.multiplier * norm * unit)
        if (quantile := self.noise.quantile) is not None:
            count = float(noise.added(scalars[:1] / unit, quantile.noise))
            self._adapt(count / self.noise.expected + HALF, quantile)
        if (metrics := self.noise.metrics) is not None:
            sums = noise.added(scalars[self._bits :] / unit, metrics.deviation)
            self._means = metrics.means(sums.tolist())
        noised = self._only_trained(noised)
        return torch.cat([noised, torch.zeros_like(scalars)]) if len(scalars) else noised

    def _adapt(self, share: float, quantile: NormQuantile) -> None:
        """Towards the quantile. `share`: the noised share of updates within the norm."""
        self._share = min(max(share, 0.0), 1.0)
        moved = self.clipping_norm * math.exp(-quantile.rate * (min(max(share, -1.0), 2.0) - quantile.target))
        self.clipping_norm = min(max(moved, LEAST_ROOM * self.room), LARGEST_NORM / 2)

    def figures(self) -> dict[str, float | None]:
        if self.noise.quantile is None:
            return self._means
        clipped = None if self._share is None else 1 - self._share
        return {**self._means, "clipping_norm": self._used, "share_clipped": clipped}

    def state_dict(self) -> dict[str, Any]:
        return {NORM: self.clipping_norm, "rounds": self._rounds}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.clipping_norm, self._rounds = float(saved[NORM]), int(saved["rounds"])

    def _parts(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """The update, and the scalars behind it. Raises UpdateRejected for a vector of another length."""
        if vector.shape != (self._size + len(self.scalars),):
            raise UpdateRejected("an update of another length than the model's")
        return vector[: self._size], vector[self._size :]

    def _only_trained(self, update: Tensor, *, in_place: bool = False) -> Tensor:
        """With zeros for what is not trained, whatever it holds; a copy where that changes anything."""
        changed = [run for run in self._untrained if in_place or torch.count_nonzero(update[run])]
        found = update if in_place or not changed else update.clone()
        for run in changed:
            found[run] = 0.0
        return found

    def _metrics(self, scalars: Tensor) -> Tensor:
        """Of a single client."""
        own = scalars[self._bits :]
        return self.noise.metrics.bounded(own) if self.noise.metrics is not None else own

    def _metrics_possible(self, scalars: Tensor, weight: float) -> bool:
        metrics, rounding = self.noise.metrics, weight / self.noise.unit * FIXED_POINT  # each client once
        return metrics is None or metrics.possible(scalars[self._bits :], weight, rounding)

    def _norm(self, params: Params) -> float:
        """Raises UpdateRejected for a clipping norm that no server of this code sends."""
        norm = params.get(NORM)
        if not isinstance(norm, float) or not 2 * self.room <= norm < LARGEST_NORM:
            raise UpdateRejected("no clipping norm that could be")
        return norm


def _runs(entries: Tensor) -> list[slice]:
    """Where `entries` (n,) bool are true, as slices: those of a model's tensors are few."""
    outside = torch.zeros(1, dtype=torch.int8)
    edges = torch.diff(entries.to(torch.int8), prepend=outside, append=outside).nonzero().flatten()
    return [slice(start, end) for start, end in edges.view(-1, 2).tolist()]
