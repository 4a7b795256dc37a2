"""What sums under encryption have in common as options."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from fedapp.aggregation.encrypted.additive_scheme import AdditiveScheme
from fedapp.aggregation.encrypted.encrypted_integers import EncryptedIntegers
from fedapp.aggregation.helper.through_helper import ThroughHelper
from fedapp.aggregation.whole_numbers.fixed_point import FixedPoint
from fedapp.config import Config
from fedapp.learning.build import Parts

__all__ = ["EncryptedSum"]


@dataclass(frozen=True)
class EncryptedSum(ThroughHelper):
    """`max_cohort`: how many clients a sum may have; lanes and parameters are reckoned for it."""

    max_cohort: Annotated[int, Field(ge=2)]

    @property
    def numbers(self) -> FixedPoint:
        return FixedPoint(clip=self.clip, bits=self.bits, modulus_bits=64)

    @abstractmethod
    def scheme(self, numbers: FixedPoint) -> AdditiveScheme:
        """Raises ConfigError, with the arithmetic, where no parameters fit, and where its package is missing."""

    def carrier(self, numbers: FixedPoint) -> EncryptedIntegers:
        return EncryptedIntegers(self.scheme(numbers), numbers, self.max_cohort)

    def check_cohort(self, config: Config, parts: Parts, needed: int, asked: int, clients: int) -> None:
        """With the arithmetic in its message."""
        self.numbers.check_two(needed)
        self.carrier(self.numbers_in(config)).check_cohort(asked)
