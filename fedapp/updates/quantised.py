"""compression=quantise: updates travel as whole numbers of a few bits a value."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from fedapp.common.errors import ConfigError
from fedapp.config import instantiate
from fedapp.updates.own_levels import OwnLevels
from fedapp.updates.step import UpdateStep
from fedapp.updates.summed_levels import SummedLevels

__all__ = ["Quantise"]

LARGEST = 1e6
FEWEST_BOUNDED = 4  # bits at which the norm of a sum tells of the norms of updates
MULTIPLE = 16  # of first_norm, the largest norm: four doublings, and a range that 8 bits still resolve as 4 bits do


@dataclass(frozen=True)
class Quantise(UpdateStep):
    """The keys of `conf/compression/quantise.yaml`, which says what each means.

    Where the server needs the sum alone, clients share one planned range, and their whole numbers are added. Where it
    looks at single updates (a robust rule, a limit on norms, client-level DP), each has a range of its own, and is
    turned back before anything looks at it.
    """

    bits: Literal[8, 4, 2, 1]
    first_norm: Annotated[float, Field(ge=1e-6, le=LARGEST)]
    largest_norm: Annotated[float, Field(ge=1e-6, le=LARGEST)] | None

    def in_run(self, config: Any, before: Sequence[UpdateStep] = ()) -> UpdateStep:
        seen = instantiate("secure_aggregation", config.secure_aggregation).individual_updates
        each = instantiate("strategy.aggregation", config.strategy.aggregation, partial=True)({}).each
        if seen and (each or before):
            return OwnLevels(self.bits, tail=sum(len(step.scalars) for step in before))
        most = min(MULTIPLE * self.first_norm, LARGEST) if self.largest_norm is None else self.largest_norm
        if most < self.first_norm:
            raise ConfigError(
                f"compression.largest_norm={most:g}: is below compression.first_norm={self.first_norm:g}; raise it"
            )
        if (limit := config.strategy.max_update_norm) is not None:  # no honest client's norm is planned above it
            if self.bits < FEWEST_BOUNDED:
                raise ConfigError(
                    f"compression.bits={self.bits}: where the server sees a sum alone, the rounding of so few bits is"
                    f" as large as what strategy.max_update_norm={limit:g} is to keep out; set compression.bits to"
                    f" {FEWEST_BOUNDED} or 8, or strategy.max_update_norm=null"
                )
            most = min(most, limit)
        return SummedLevels(self.bits, min(self.first_norm, most), largest_norm=most)
