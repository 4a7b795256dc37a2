"""What was found in data, in words."""

from dataclasses import dataclass

__all__ = ["Findings"]


@dataclass(frozen=True)
class Findings:
    """What was found in the data, in lines for a person to read before training, and what in it looks wrong."""

    facts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
