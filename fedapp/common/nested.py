"""Mappings within mappings, such as a config."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

__all__ = ["differences", "is_among", "leaves"]


def leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no mapping, or an empty one, under its dotted key."""
    for name, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def differences(before: Mapping[str, Any], now: Mapping[str, Any], counts: Callable[[str], bool]) -> list[str]:
    """The leaves, of the keys that count, in which two configs differ: `key=value: was another`, in the keys' order."""
    old, new = dict(leaves(before)), dict(leaves(now))
    changed = (key for key in sorted(old.keys() | new.keys()) if counts(key) and old.get(key) != new.get(key))
    return [f"{key}={new.get(key)}: was {old.get(key)}" for key in changed]


def is_among(key: str, wanted: Collection[str]) -> bool:
    """Whether a dotted key, or the section that it is in, is one of these."""
    return key in wanted or key.partition(".")[0] in wanted
