"""What a sum of whole numbers says: the mean update, the means of metrics, and what of it is not what clients meant."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedapp.aggregation.protocol import Aggregate
from fedapp.aggregation.reply_log import ReplyLog
from fedapp.aggregation.whole_numbers.digits import from_digits
from fedapp.aggregation.whole_numbers.fixed_point import FixedPoint
from fedapp.aggregation.whole_numbers.metrics import ENTRIES, Decoded, decode
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.aggregation.whole_numbers.quantise import MOST_CLIPPED
from fedapp.common.state_digest import State
from fedapp.updates.steps import unflatten

__all__ = ["SumReading"]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class SumReading:
    """`metrics`: by name, the largest value of each metric that is aggregated along with the updates; `lowest`: the
    lowest, where that is not the largest one's negative."""

    numbers: FixedPoint
    metrics: Mapping[str, float]
    lowest: Mapping[str, float] = field(default_factory=dict)

    @property
    def entries(self) -> int:
        """At the end of a vector, those that are of metrics."""
        return ENTRIES * len(self.metrics) * self.numbers.digits

    def mean(self, total: Ints, weight: float) -> Tensor:
        """Of an update or a part of it, as float64. `weight`: of those in the sum; 1 is the cohort's mean."""
        if weight <= 0:
            raise ProtocolError("too few", "those who remain have no weight")
        return torch.from_numpy(total.astype(np.float64) * (self.numbers.step / weight))

    def metric_means(self, total: Ints, weight: float, clients: int) -> Decoded:
        """`total`: the entries of metrics."""
        if weight <= 0:
            raise ProtocolError("too few", "those who remain have no weight")
        numbers = self.numbers.of_metrics
        whole = from_digits(total, clients, self.numbers) if self.numbers.levels else total
        mean = whole.astype(np.float64) * (numbers.step / weight)
        return decode(mean, self.metrics, numbers, rounding=numbers.step * clients / weight, lowest=self.lowest)

    def rounding(self, length: int, clients: int) -> float:
        """Rounding adds less than one unit a value and client."""
        return self.numbers.step * math.sqrt(length) * clients

    def aggregate(
        self, total: Ints, weight: float, survivors: tuple[int, ...], template: State, replies: ReplyLog
    ) -> Aggregate:
        """The weighted mean over the survivors, of weight 1; of levels their sum, of the survivors' weight. Raises
        ProtocolError where they have no weight."""
        length = len(total) - self.entries
        divisor = 1.0 if self.numbers.levels else weight
        mean = self.mean(total[:length], divisor)
        found = self.metric_means(total[length:], weight, len(survivors))
        return Aggregate(
            total=unflatten(mean, template),
            weight=weight / divisor,
            survivors=survivors,
            replies=replies,
            scalars=found.means,
            rounding=self.rounding(length, len(survivors)),
            warnings=self.warnings(found),
        )

    def warnings(self, found: Decoded) -> dict[str, str]:
        """What of this sum is not what the clients meant."""
        clipped, clip = found.means.get("clipped") or 0.0, self.numbers.clip
        warnings = {
            f"{name} too large": f"{name} of {share:.3g} of the cohort is above {self.metrics[name]:g}, the most that"
            " secure aggregation sends, and not in the mean"
            for name, share in found.beyond.items()
        } | {
            f"{name} impossible": f"the sum of {name} is none that its values can give, so it has no mean: a client"
            " sends false figures, and its update may be false as well"
            for name in found.impossible
        }
        if clipped > MOST_CLIPPED:
            warnings["clipped"] = (
                f"{100 * clipped:.3g} % of the updates' entries lay beyond +-{clip:g}, so clients have scaled their"
                " updates down and the sum is another one than that of the updates; raise"
                f" secure_aggregation.clip={clip:g}, or lower optimizer.lr"
            )
        return warnings
