"""Identities: the texts by which parties know the same entity, in one form for all of them."""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from fedapp.common.errors import DataError
from fedapp.data.tables.text import clean

__all__ = ["RULES", "check_unique", "is_enumerable", "joined", "normalise"]

ENUMERABLE = 1 << 40  # identities that a laptop can hash within days


def _casefold(text: str) -> str:
    return clean(unicodedata.normalize("NFKC", text).casefold())


def _alphanumeric(text: str) -> str:
    return "".join(letter for letter in _casefold(text) if letter.isalnum())


# By vertical.normalise.
RULES: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {"clean": clean, "casefold": _casefold, "alphanumeric": _alphanumeric}
)


def normalise(text: str, rule: str) -> str:
    """`clean`: no spaces around it, Unicode's composed form. `casefold`: also without case and width. `alphanumeric`:
    also without anything but letters and digits. "" is no identity."""
    return RULES[rule](text)


def joined(cells: Sequence[str], rule: str) -> str:
    """One identity of the cells of several columns; "" where any of them is empty."""
    parts = [normalise(cell, rule) for cell in cells]
    if not all(parts):
        return ""
    return "".join(f"{len(part)}:{part}" for part in parts) if len(parts) > 1 else "".join(parts)


def check_unique(identities: Sequence[str], name: str) -> None:
    """Raises DataError, opening with `name`, where an identity is there twice: the party could not say which row is
    meant. Rows without an identity may be many."""
    seen: dict[str, int] = {}
    for row, identity in enumerate(identities):
        if identity and (first := seen.setdefault(identity, row)) != row:
            raise DataError(
                f"{name}: rows {first + 1} and {row + 1} have the same identity {identity!r}. A party without labels"
                " has one row for each entity: remove one of them, or add a column to its id-column"
            )


def is_enumerable(identities: Sequence[str]) -> bool:
    """Whether anyone could try all identities of this form: then matching hides nothing about them.

    The form allows, at each place, the characters that some identity has there.
    """
    places: list[set[str]] = []
    for identity in identities:
        for at, letter in enumerate(identity):
            if at == len(places):
                places.append(set())
            places[at].add(letter)
    count = 1
    for letters in places:
        count *= len(letters)
        if count > ENUMERABLE:
            return False
    return bool(places)
