"""The group ristretto255 (RFC 9496), in which identities are blinded. It has prime order, so no point has a small one.

An identity is hashed to a point by SHA-512 and the group's own map. Blinding raises it to a secret power; without that
power it looks like a random point (decisional Diffie-Hellman).
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fedapp.vertical.party_error import PartyError

__all__ = ["POINT_BYTES", "blinded", "check_points", "first_equal", "new_scalar", "points_in", "raised"]

POINT_BYTES = 32
NEUTRAL = bytes(POINT_BYTES)  # the encoding of the identity element


def new_scalar() -> bytes:
    """A secret power, from the operating system's entropy."""
    from rbcl import crypto_core_ristretto255_scalar_random

    return bytes(crypto_core_ristretto255_scalar_random())


def blinded(identities: Sequence[str], scalar: bytes, purpose: str) -> bytes:
    """One point after the other: H(identity) to the power of `scalar`. Points of different purposes never match."""
    from rbcl import crypto_core_ristretto255_from_hash as to_point
    from rbcl import crypto_scalarmult_ristretto255 as raise_to

    opening = b"fedapp matching 1" + hashlib.sha512(purpose.encode()).digest()
    hashes = (hashlib.sha512(opening + identity.encode("utf-8", "surrogatepass")).digest() for identity in identities)
    return _joined(raise_to(scalar, to_point(digest)) for digest in hashes)


def points_in(content: bytes) -> Iterator[bytes]:
    return (content[start : start + POINT_BYTES] for start in range(0, len(content), POINT_BYTES))


def check_points(content: bytes, *, most: int, exactly: int | None = None, seen: bytes = b"") -> None:
    """Raises PartyError unless `content` holds distinct points of the group other than the identity element, and none
    of those in `seen`, which this party has sent itself. `most`: how many may be there."""
    from rbcl import crypto_core_ristretto255_is_valid_point as is_point

    count, rest = divmod(len(content), POINT_BYTES)
    if rest or (exactly is not None and count != exactly):
        wanted = f"{exactly} points" if exactly is not None else "points"
        raise PartyError("wrong length", f"{len(content)} bytes in place of {wanted} of {POINT_BYTES} bytes")
    if count > most:
        raise PartyError(
            "wrong length", f"{count} identities, and this party accepts {most} (node-config max-identities)"
        )
    for number, point in enumerate(points_in(content), start=1):
        if point == NEUTRAL:
            raise PartyError("identity element", f"point {number} of {count} is the group's identity element")
        if not is_point(point):
            raise PartyError("no point", f"point {number} of {count} is no canonical encoding of a point of the group")
    before = len(seen) // POINT_BYTES
    first = first_equal(seen + content)[before:]
    repeated = first != np.arange(before, before + count)
    if repeated.any():
        raise PartyError("replayed", f"point {int(repeated.argmax()) + 1} of {count} was there before")


def first_equal(content: bytes) -> NDArray[np.int64]:
    """By point of `content`, the place of the first one that is equal. By sorting: a set of a million points would take
    a hundred megabytes."""
    words = np.frombuffer(content, np.uint64).reshape(-1, POINT_BYTES // 8)
    order = np.lexsort(words.T)  # equal ones stay in their order
    new = np.ones(len(words), dtype=bool)
    new[1:] = False
    for column in words.T:
        along = column[order]
        new[1:] |= along[1:] != along[:-1]
    found = np.empty(len(words), np.int64)
    found[order] = order[new][np.cumsum(new) - 1]
    return found


def raised(content: bytes, scalar: bytes) -> bytes:
    """Each point of `content`, which `check_points` has passed, to the power of `scalar`."""
    from rbcl import crypto_scalarmult_ristretto255 as raise_to

    return _joined(raise_to(scalar, point) for point in points_in(content))


def _joined(points: Iterable[bytes]) -> bytes:
    """Without a list of all of them, which would take several times their bytes."""
    content = bytearray()
    for point in points:
        content += point
    return bytes(content)
