"""Where the seconds of a round go."""

import time
from collections.abc import Iterator

from flwr.app import Message

__all__ = ["Clock"]


class Clock:
    """Seconds of a round by phase. What is spent waiting inside a lap can be booked on a phase of its own.

    A round begins with the checkpoint of the one before it, which held it up for `checkpoint` seconds.
    """

    def __init__(self, checkpoint: float = 0.0) -> None:
        self._start = self._last = time.perf_counter()
        self._phases = dict.fromkeys(("clients", "aggregate", "evaluate", "other"), 0.0) | {"checkpoint": checkpoint}

    def lap(self, phase: str) -> None:
        """Book the time since the last lap on `phase`."""
        now = time.perf_counter()
        self._phases[phase] += now - self._last
        self._last = now

    def waiting(self, phase: str, items: Iterator[Message]) -> Iterator[Message]:
        """`items`, with the time until each one comes booked on `phase`, and what is done with it on "aggregate"."""
        while True:
            self.lap("aggregate")
            item = next(items, None)
            self.lap(phase)
            if item is None:
                return
            yield item

    def total(self) -> float:
        return time.perf_counter() - self._start + self._phases["checkpoint"]

    def phases(self) -> dict[str, float]:
        return {f"seconds_{name}": value for name, value in self._phases.items()}
