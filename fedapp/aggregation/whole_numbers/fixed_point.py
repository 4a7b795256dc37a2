"""How the values of an update become whole numbers, and which modulus holds their sum."""

from dataclasses import dataclass, replace
from typing import Self

from fedapp.common.errors import ConfigError

__all__ = ["GROUP", "FixedPoint"]

GROUP = "secure_aggregation"
METRIC_BITS, SUM_BITS = 22, 40  # of a metric beside levels, and of its sum
MOST_LEVELS = 2 ** (SUM_BITS - METRIC_BITS - 1)  # clients in a sum of levels


@dataclass(frozen=True, kw_only=True)
class FixedPoint:
    """Values lie in -clip..clip, and a client of mean weight sends them as whole numbers of `bits` bits, sign included,
    in the integers modulo 2^modulus_bits.

    `levels`: an update's values are whole numbers of `bits` bits already, weight included (`UpdateStep.level_bits`).
    Then a unit is one of them, metrics are sent as several digits of `bits` bits, and `at` gives the modulus.
    """

    clip: float = 4.0
    bits: int = 22
    modulus_bits: int = 32
    levels: bool = False

    def of(self, level_bits: int | None) -> Self:
        """For updates that are whole numbers of so many bits; None where they are not."""
        return self if level_bits is None else replace(self, bits=level_bits, levels=True)

    def at(self, cohort: int) -> Self:
        """The numbers of a sum over a cohort, or a part of it: levels need log2(cohort) bits more than each has."""
        return (
            replace(self, modulus_bits=self.bits + (min(cohort, MOST_LEVELS) - 1).bit_length()) if self.levels else self
        )

    @property
    def step(self) -> float:
        """The value of one unit, for a client of mean weight."""
        return 1.0 if self.levels else self.clip / 2.0 ** (self.bits - 1)

    @property
    def of_metrics(self) -> "FixedPoint":
        """How metrics become whole numbers."""
        return FixedPoint(clip=self.clip, bits=METRIC_BITS, modulus_bits=64) if self.levels else self

    @property
    def digits(self) -> int:
        """In how many entries a metric's number is sent."""
        return -(-SUM_BITS // self.bits) if self.levels else 1

    @property
    def dtype(self) -> str:
        """Of the unsigned integers that hold a value: its wrapping is the modulus's, which divides it."""
        return next(f"<u{size}" for size in (2, 4, 8) if self.modulus_bits <= 8 * size)

    def largest_sum(self, cohort: int) -> int:
        """No sum over a cohort is larger in magnitude: weights are cohort in all, and rounding adds up to one each."""
        return int(cohort * (2 ** (self.bits - 1) + (not self.levels)))

    def check_two(self, cohort: int) -> None:
        """Raises ConfigError for a cohort whose sum is somebody's update."""
        if cohort < 2:
            raise ConfigError(
                f"{GROUP}: a cohort of {cohort} has no sum that would hide anything; ask at least two clients a round"
                " (federation.min_clients, federation.fraction_train)"
            )

    def check_modulus(self, cohort: int) -> None:
        """Raises ConfigError, with the arithmetic, where a sum could wrap."""
        largest, half = self.largest_sum(cohort), 2 ** (self.modulus_bits - 1)
        if self.levels and cohort > MOST_LEVELS:
            raise ConfigError(
                f"compression: a sum of levels has {MOST_LEVELS} clients at most, and rounds ask {cohort}; lower"
                " federation.fraction_train"
            )
        if self.levels or largest < half:
            return
        fit = [bits for bits in range(2, self.bits) if cohort * (2 ** (bits - 1) + 1) < half]
        remedy = f"set {GROUP}.bits={max(fit)}, or " if fit else ""
        raise ConfigError(
            f"{GROUP}.modulus_bits={self.modulus_bits}: too small for a cohort of {cohort} with bits={self.bits}: the"
            f" sum of {cohort} clients of mean weight 1 reaches {cohort} x 1 x (2^{self.bits - 1} + 1) = {largest},"
            f" and 2^{self.modulus_bits} leaves less than 2^{self.modulus_bits - 1} = {half} on either side of zero;"
            f" {remedy}take a larger modulus"
        )
