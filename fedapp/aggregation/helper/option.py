"""secure_aggregation=helper: one message of each client; a helper site removes masks, and sees no masked update."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from fedapp.aggregation.helper.masked_integers import MaskedIntegers
from fedapp.aggregation.helper.through_helper import ThroughHelper
from fedapp.aggregation.whole_numbers.fixed_point import GROUP, FixedPoint
from fedapp.config import Config
from fedapp.learning.build import Parts

__all__ = ["HelperMasks"]


@dataclass(frozen=True)
class HelperMasks(ThroughHelper):
    """The keys of `conf/secure_aggregation/helper.yaml`, which says what each means."""

    modulus_bits: Literal[16, 24, 32, 40, 48, 56, 64]
    helpers: Annotated[int, Field(ge=1, le=8)]

    setting = f"{GROUP}=helper"

    @property
    def helper_sites(self) -> int:
        return self.helpers

    @property
    def numbers(self) -> FixedPoint:
        return FixedPoint(clip=self.clip, bits=self.bits, modulus_bits=self.modulus_bits)

    def carrier(self, numbers: FixedPoint) -> MaskedIntegers:
        return MaskedIntegers(numbers)

    def check_cohort(self, config: Config, parts: Parts, needed: int, asked: int, clients: int) -> None:
        """With the arithmetic in its message."""
        self.numbers.check_two(needed)
        self.carrier(self.numbers_in(config)).check_cohort(asked)
