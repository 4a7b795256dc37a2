"""BFV's parameters, for 128-bit security by the table of the Homomorphic Encryption Standard (Albrecht et al. 2018).

That table allows 109 bits of modulus in all for a ring of degree 4096, and 218 for 8192, with ternary secrets.

The noise, by arithmetic. SEAL encrypts under all of the modulus, with errors of at most 21 (a centred binomial), and
then divides by the last prime p and rounds. A fresh ciphertext of degree n is off by at most

    21 (2 n + 1) / p + (n + 1) / 2 + 1/2                                     (worst case)

units: the first part is below one, the second is from rounding, times a ternary secret, the third from scaling the
plaintext by q / t. A sum of N ciphertexts is off by N times that, and is decrypted right where it is below q / (2 t).
"""

from dataclasses import dataclass

from fedapp.aggregation.encrypted.additive_scheme import Lanes

__all__ = ["TABLE", "Parameters"]

LARGEST_ERROR = 21


@dataclass(frozen=True)
class Parameters:
    """`degree` n: values in a ciphertext. `primes`: bits of the modulus's primes, the last of which is for encryption
    alone. `modulus` t: a prime with t = 1 modulo 2 n, so that each value has a slot of its own."""

    degree: int
    primes: tuple[int, ...]
    modulus: int

    @property
    def most_clients(self) -> int:
        """Of whose ciphertexts a sum is decrypted right whatever the noise."""
        fresh = LARGEST_ERROR * (2 * self.degree + 1) / 2 ** (self.primes[-1] - 1) + (self.degree + 1) / 2 + 0.5
        # SEAL's primes of b bits lie just above 2^(b - 1) at least; those that it takes, just below 2^b.
        return int(0.999 * 2.0 ** sum(self.primes[:-1]) / (2 * self.modulus * fresh))

    def lanes(self, largest: int) -> Lanes:
        """As many as fit for sums up to `largest` in magnitude; none may be 0."""
        base, count, reach = 2 * largest + 1, 0, 1
        while reach * base <= self.modulus:
            reach, count = reach * base, count + 1
        return Lanes(base, count)

    def bytes_of_value(self, largest: int) -> float:
        """That a client sends for each, before compression; infinite where it does not fit."""
        count = self.lanes(largest).count
        return 16 * (len(self.primes) - 1) / count if count else float("inf")

    @property
    def most_bytes(self) -> int:
        """Of one ciphertext: two polynomials, and what names them."""
        return 16 * self.degree * (len(self.primes) - 1) * 11 // 10 + 4096

    @property
    def most_public_bytes(self) -> int:
        """Of a context without a secret key: the parameters, and two polynomials modulo all primes."""
        return 16 * self.degree * len(self.primes) * 11 // 10 + 4096


TABLE = (
    Parameters(4096, (54, 54), 8589852673),
    Parameters(8192, (60, 60, 60), 576460752303210497),
)
