"""The group ristretto255 (RFC 9496), in which identities are blinded. It has prime order, so no point has a small one.

An identity is hashed to a point by SHA-512 and the group's own map. Blinding raises it to a secret power; without that
power it looks like a random point (decisional Diffie-Hellman).
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence

from fedapp.vertical.party_error import PartyError

__all__ = ["POINT_BYTES", "blinded", "check_points", "new_scalar", "points_in", "raised"]

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
    return b"".join(raise_to(scalar, to_point(digest)) for digest in hashes)


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
    own: Collection[bytes] = set(points_in(seen))
    found: set[bytes] = set()
    for number, point in enumerate(points_in(content), start=1):
        if point == NEUTRAL:
            raise PartyError("identity element", f"point {number} of {count} is the group's identity element")
        if not is_point(point):
            raise PartyError("no point", f"point {number} of {count} is no canonical encoding of a point of the group")
        if point in found or point in own:
            raise PartyError("replayed", f"point {number} of {count} was there before")
        found.add(point)


def raised(content: bytes, scalar: bytes) -> bytes:
    """Each point of `content`, which `check_points` has passed, to the power of `scalar`."""
    from rbcl import crypto_scalarmult_ristretto255 as raise_to

    return b"".join(raise_to(scalar, point) for point in points_in(content))
