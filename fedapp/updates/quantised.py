"""compression=quantise: updates travel as whole numbers of a few bits a value."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from fedapp.config import instantiate
from fedapp.updates.own_levels import OwnLevels
from fedapp.updates.step import UpdateStep
from fedapp.updates.summed_levels import SummedLevels

__all__ = ["Quantise"]


@dataclass(frozen=True)
class Quantise(UpdateStep):
    """The keys of `conf/compression/quantise.yaml`, which says what each means.

    Where the server needs the sum alone, clients share one planned range, and their whole numbers are added. Where it
    looks at single updates (a robust rule, a limit on norms, client-level DP), each has a range of its own, and is
    turned back before anything looks at it.
    """

    bits: Literal[8, 4, 2, 1]
    first_norm: Annotated[float, Field(ge=1e-6, le=1e6)]

    def in_run(self, config: Any, before: Sequence[UpdateStep] = ()) -> UpdateStep:
        seen = instantiate("secure_aggregation", config.secure_aggregation).individual_updates
        each = instantiate("strategy.aggregation", config.strategy.aggregation, partial=True)({}).each
        if seen and (each or before):
            return OwnLevels(self.bits, tail=sum(len(step.scalars) for step in before))
        return SummedLevels(self.bits, self.first_norm)
