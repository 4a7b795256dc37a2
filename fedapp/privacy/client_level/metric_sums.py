"""Federated metrics as sums with noise: what `privacy.metrics_epsilon` pays for.

A client judges the model that it is sent on its validation split. To the round's sum it adds s, its share of
`count_cap` examples, 1 at most, and s (v - 1/2) for its loss and for each metric, v being the value as a share of its
range. So one client more moves these k + 1 sums by sqrt(1 + k / 4) at most, in L2, whatever it claims.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedapp.learning.task import Evaluation, Task

__all__ = ["MetricSums", "summed_metrics"]

FEWEST = 3.0  # standard deviations of the noised count, below which it says too little to divide by


def summed_metrics(task: Task, loss_cap: float) -> dict[str, tuple[float, float]]:
    """By name, the range of what can be averaged over clients: the loss, up to `loss_cap`, and the metrics of the task
    that are bounded and defined on a single example. A ranking's, such as AUC, is not."""
    one = task.example_targets(1)
    known = {
        name: (metric.lowest, metric.highest)
        for name, metric in task.metrics.items()
        if math.isfinite(metric.lowest) and math.isfinite(metric.highest) and not task.undefined(name, one)
    }
    return {"loss": (min(0.0, max(task.criterion.lowest, -loss_cap)), loss_cap), **known}


@dataclass(frozen=True)
class MetricSums:
    """`ranges`: of each value, by name; what lies beyond is clipped. `multiplier`: the standard deviation of the noise
    on each sum, in units of `sensitivity`."""

    ranges: Mapping[str, tuple[float, float]]
    count_cap: int
    multiplier: float

    @property
    def scalars(self) -> tuple[str, ...]:
        """Names of the sums: the count, then the values."""
        return ("val-examples", *(f"val-{name}" for name in self.ranges))

    @property
    def sensitivity(self) -> float:
        """By how much one client changes all sums, in L2, at most."""
        return math.sqrt(1 + len(self.ranges) / 4)

    @property
    def deviation(self) -> float:
        """The standard deviation of the noise on each sum."""
        return self.multiplier * self.sensitivity

    def contribution(self, judged: Evaluation | None) -> dict[str, float]:
        """A client's own part, by name of a scalar; zeros without a validation split. A value that is no number counts
        as the middle of its range."""
        share = 0.0 if judged is None else min(judged.num_examples / self.count_cap, 1.0)
        found = {"val-examples": share}
        for name, (low, high) in self.ranges.items():
            value = math.nan if judged is None else judged.loss if name == "loss" else judged.metrics[name]
            placed = (min(max(value, low), high) - low) / (high - low) - 0.5
            found[f"val-{name}"] = 0.0 if math.isnan(value) else share * placed
        return found

    def bounded(self, values: Tensor) -> Tensor:
        """One client's scalars (k + 1,) as they may be, whatever it has sent."""
        values = torch.nan_to_num(values)
        share = values[:1].clamp(0.0, 1.0)
        return torch.cat([share, torch.minimum(torch.maximum(values[1:], -share / 2), share / 2)])

    def possible(self, sums: Tensor, weight: float, rounding: float) -> bool:
        """Whether honest clients of this weight together can have made these sums (k + 1,), each of which fixed point
        may have moved by `rounding`."""
        share, rest = sums[0], sums[1:].abs()
        slack = 1.5 * rounding  # a sum and half of the count
        return bool(-slack <= share <= weight + slack) and bool((rest <= share / 2 + slack).all())

    def means(self, noised: Sequence[float]) -> dict[str, float | None]:
        """What metrics.jsonl says, from the noised sums (k + 1,); None where too few examples stand against the
        noise."""
        count, *sums = noised
        if not count > max(FEWEST * self.deviation, 0.0):
            return {f"val_{name}": None for name in self.ranges}
        shares = [min(max(total / count + 0.5, 0.0), 1.0) for total in sums]
        pairs = zip(self.ranges.items(), shares, strict=True)
        return {f"val_{name}": low + share * (high - low) for (name, (low, high)), share in pairs}

    def summary(self, epsilon: float | None) -> dict[str, Any]:
        """What summary.json says. `epsilon`: what they alone cost, which is within the run's."""
        return {
            "epsilon": epsilon,
            "noise_multiplier": self.multiplier,
            "sensitivity": self.sensitivity,
            "count_cap": self.count_cap,
            "ranges": {name: list(found) for name, found in self.ranges.items()},
        }
