"""tracker=none: a run is told to its directory alone."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedapp.tracking.tracker import AboutRun, Listener, Store, Tracker

__all__ = ["NoTracker"]


@dataclass(frozen=True)
class NoTracker(Tracker):
    def check(self) -> None:
        """Needs nothing."""

    def open(self, about: AboutRun, identity: str | None) -> Store:
        raise NotImplementedError("nobody is told")

    def listeners(self, about: AboutRun) -> Sequence[Listener]:
        return ()
