"""How the values of an update become whole numbers, and which modulus holds their sum."""

from dataclasses import dataclass

from fedapp.common.errors import ConfigError

__all__ = ["GROUP", "FixedPoint"]

GROUP = "secure_aggregation"


@dataclass(frozen=True, kw_only=True)
class FixedPoint:
    """Values lie in -clip..clip, and a client of mean weight sends them as whole numbers of `bits` bits, sign included,
    in the integers modulo 2^modulus_bits."""

    clip: float = 4.0
    bits: int = 22
    modulus_bits: int = 32

    @property
    def step(self) -> float:
        """The value of one unit, for a client of mean weight."""
        return self.clip / 2.0 ** (self.bits - 1)

    @property
    def dtype(self) -> str:
        """Of the unsigned integers that hold a value: its wrapping is the modulus's, which divides 2^32 or 2^64."""
        return "<u4" if self.modulus_bits <= 32 else "<u8"

    def largest_sum(self, cohort: int) -> int:
        """No sum over a cohort is larger in magnitude: weights are cohort in all, and rounding adds up to one each."""
        return int(cohort * (2 ** (self.bits - 1) + 1))

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
        if largest < half:
            return
        fit = [bits for bits in range(2, self.bits) if cohort * (2 ** (bits - 1) + 1) < half]
        remedy = f"set {GROUP}.bits={max(fit)}, or " if fit else ""
        raise ConfigError(
            f"{GROUP}.modulus_bits={self.modulus_bits}: too small for a cohort of {cohort} with bits={self.bits}: the"
            f" sum of {cohort} clients of mean weight 1 reaches {cohort} x 1 x (2^{self.bits - 1} + 1) = {largest},"
            f" and 2^{self.modulus_bits} leaves less than 2^{self.modulus_bits - 1} = {half} on either side of zero;"
            f" {remedy}take a larger modulus"
        )
