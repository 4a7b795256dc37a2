"""secure_aggregation=bfv: masked updates, encrypted for a helper by BFV; the server adds ciphertexts."""

from dataclasses import dataclass
from importlib.util import find_spec

from fedapp.aggregation.bfv.bfv_scheme import Bfv
from fedapp.aggregation.bfv.parameters import TABLE
from fedapp.aggregation.encrypted.encrypted_sum import EncryptedSum
from fedapp.aggregation.whole_numbers.fixed_point import GROUP, FixedPoint
from fedapp.common.errors import ConfigError

__all__ = ["BfvSum"]


@dataclass(frozen=True)
class BfvSum(EncryptedSum):
    """The keys of `conf/secure_aggregation/bfv.yaml`, which says what each means."""

    setting = f"{GROUP}=bfv"

    def scheme(self, numbers: FixedPoint) -> Bfv:
        """The parameters of the table that send fewest bytes."""
        if find_spec("tenseal") is None:
            raise ConfigError(f"{self.setting}: needs the package tenseal; pip install 'fedapp[he]'")
        largest = numbers.largest_sum(self.max_cohort)
        fitting = [row for row in TABLE if row.most_clients >= self.max_cohort and row.lanes(largest).count]
        if not fitting:
            tried = "; ".join(
                f"degree {row.degree}: {row.most_clients} clients by the noise, sums to {(row.modulus - 1) // 2} by t"
                for row in TABLE
            )
            raise ConfigError(
                f"{GROUP}.max_cohort={self.max_cohort}: sums of {self.max_cohort} x 1 x (2^{self.bits - 1} + 1) ="
                f" {largest} do not fit ({tried}); lower {GROUP}.bits={self.bits} or max_cohort"
            )
        return Bfv(min(fitting, key=lambda row: row.bytes_of_value(largest)))
