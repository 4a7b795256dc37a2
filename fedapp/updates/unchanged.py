"""compression=none: updates travel as they are."""

from dataclasses import dataclass

from fedapp.updates.step import UpdateStep

__all__ = ["Unchanged"]


@dataclass(frozen=True)
class Unchanged(UpdateStep):
    """Does nothing."""

    idle = True
