"""Mappings within mappings, such as a config."""

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["leaves"]


def leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no mapping, or an empty one, under its dotted key."""
    for name, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
