"""Private set intersection by Diffie-Hellman (Huberman, Franklin & Hogg 1999) between the label party and another one.

The label party has secret power a and blinds its identities x to H(x)^a; the other party has b and blinds its own y to
H(y)^b, in random order. Each raises what it gets from the other: the label party compares H(x)^ab with H(y)^ba.
It learns which of its identities the other party has, and that party's number of identities. The other party learns
the label party's number of identities; then, from the rows that it is asked for, which of its own are in use.
Both are assumed to follow the protocol; what they send is checked, so that nobody learns more by sending odd points.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedapp.vertical.group import POINT_BYTES, blinded, check_points, first_equal, new_scalar, raised

__all__ = ["Blinded", "Distinct", "double", "hide", "hide_distinct", "match"]

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Blinded:
    """What a party keeps between its two messages: its power, the points that it sent, and `rows`, the row of each."""

    scalar: bytes
    points: bytes
    rows: Rows


@dataclass(frozen=True)
class Distinct:
    """The label party's identities, each once; `of_row`: by row, the place of its identity among them, -1 for none."""

    blinded: Blinded
    of_row: Rows


def hide(identities: Sequence[str], purpose: str) -> Blinded:
    """Of a party with one row for each identity: its points in random order. Rows without an identity have none."""
    rows = [row for row, identity in enumerate(identities) if identity]
    secrets.SystemRandom().shuffle(rows)
    scalar = new_scalar()
    return Blinded(scalar, blinded([identities[row] for row in rows], scalar, purpose), np.array(rows, np.int64))


def hide_distinct(identities: Sequence[str], purpose: str) -> Distinct:
    """Of the label party, where many rows may have the same identity."""
    first: dict[str, int] = {}
    for row, identity in enumerate(identities):
        if identity:
            first.setdefault(identity, row)
    hidden = hide([identity if first.get(identity) == row else "" for row, identity in enumerate(identities)], purpose)
    place = {identities[row]: at for at, row in enumerate(hidden.rows.tolist())}
    return Distinct(hidden, np.array([place.get(identity, -1) for identity in identities], np.int64))


def double(points: bytes, own: Blinded, *, most: int) -> bytes:
    """The other party's points, raised once more. Raises PartyError for what no honest party sends."""
    check_points(points, most=most, seen=own.points)
    return raised(points, own.scalar)


def match(own: Distinct, points: bytes, doubled: bytes, *, most: int) -> Rows:
    """By row of the label party, the place among the other party's `points` that has the same identity, -1 for none.

    `doubled`: the label party's own points, as the other party raised them. Raises PartyError for what no honest party
    sends.
    """
    sent = own.blinded
    check_points(points, most=most, seen=sent.points)
    check_points(doubled, most=most, exactly=len(sent.rows), seen=sent.points + points)
    theirs = len(points) // POINT_BYTES
    found = first_equal(raised(points, sent.scalar) + doubled)[theirs:]
    found = np.append(np.where(found < theirs, found, -1), -1)
    return np.where(own.of_row >= 0, found[own.of_row], -1)
