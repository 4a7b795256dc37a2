"""Shamir's secret sharing over GF(2^128) (Shamir 1979): split by pycryptodome, as in Flower; rebuilt in the same field.

Flower's own `create_shares` pads a 16-byte secret to two field elements, which doubles all work and bytes, so the
library under it is called. Its `combine` takes 74 ms for 22 shares, since it multiplies in constant time; a server must
rebuild one secret for every client, and is meant to learn it. So the interpolation is here: the same numbers (a test
compares them), thirty times as fast, and shared where the same holders answer for many.
"""

from collections.abc import Mapping
from functools import lru_cache

from Crypto.Protocol.SecretSharing import Shamir

__all__ = ["SECRET_BYTES", "combine", "split"]

SECRET_BYTES = 16
MASK = (1 << 128) - 1
MODULUS = (1 << 128) | 0b10000111  # x^128 + x^7 + x^2 + x + 1, as in the library


def split(secret: bytes, threshold: int, count: int) -> list[bytes]:
    """Shares of 16 bytes for holders 1 to `count`, any `threshold` of which give `secret`, and fewer nothing."""
    return [share for _, share in Shamir.split(threshold, count, secret, ssss=False)]


def combine(shares: Mapping[int, bytes]) -> bytes:
    """The secret from as many shares as the threshold, by holder's number from 1."""
    numbers = tuple(sorted(shares))
    secret = 0
    for number, coefficient in zip(numbers, _coefficients(numbers), strict=True):
        secret ^= _product(int.from_bytes(shares[number], "big"), coefficient)
    return secret.to_bytes(SECRET_BYTES, "big")


@lru_cache(maxsize=1024)
def _coefficients(numbers: tuple[int, ...]) -> tuple[int, ...]:
    """What Lagrange's interpolation at zero multiplies the share of each holder by."""
    found = []
    for number in numbers:
        above, below = 1, 1
        for other in numbers:
            if other != number:
                above, below = _product(above, other), _product(below, number ^ other)
        found.append(_product(above, _inverse(below)))
    return tuple(found)


def _product(first: int, second: int) -> int:
    if first < second:
        first, second = second, first
    found = 0
    while second:
        if second & 1:
            found ^= first
        first <<= 1
        second >>= 1
    while high := found >> 128:
        found = (found & MASK) ^ high ^ (high << 1) ^ (high << 2) ^ (high << 7)
    return found


def _inverse(value: int) -> int:
    """By Euclid's algorithm for polynomials over GF(2)."""
    rest, other = value, MODULUS
    factor, other_factor = 1, 0
    while rest != 1:
        if not rest:
            raise ZeroDivisionError("zero has no inverse")
        shift = rest.bit_length() - other.bit_length()
        if shift < 0:
            rest, other, factor, other_factor = other, rest, other_factor, factor
            shift = -shift
        rest ^= other << shift
        factor ^= other_factor << shift
    return _product(factor, 1)
