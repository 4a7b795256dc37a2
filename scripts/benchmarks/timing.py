"""Fair timing: the arms of a comparison in turn, and what is shown is medians and ratios of one run."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Timed", "alternate"]


@dataclass(frozen=True)
class Timed:
    """Seconds of every repetition."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def text(self) -> str:
        """The median and the range, in milliseconds."""
        low, high = 1e3 * min(self.seconds), 1e3 * max(self.seconds)
        return f"{1e3 * self.median:.1f} ({low:.1f}-{high:.1f})"


def alternate(
    arms: Mapping[str, Callable[[], object]], repetitions: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Timed]:
    """Time every arm `repetitions` times by `clock`, one after the other and round again, after one call of each to
    warm up."""
    for arm in arms.values():
        arm()
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(repetitions):
        for name, arm in arms.items():
            start = clock()
            arm()
            seconds[name].append(clock() - start)
    return {name: Timed(tuple(values)) for name, values in seconds.items()}
