"""Fetch the parts of a reply that is still being uploaded: often, and for no longer than the round lasts.

A SuperLink announces a reply before all of it is uploaded. Flower's grid then looks for the rest after 1, 2, 4, 8 and
then every 10 s, until 180 s after the sender went silent, and takes no other reply meanwhile: a device that is lost
in the middle of an upload delays the round, whatever its timeout.

Needs the grid of a deployment (`flwr.superlink.grid.http_grid`) to call its module's `pull_objects` with the keyword
arguments in `LIMITS` (flwr 1.42). Otherwise Flower's own pauses apply.
"""

import inspect
import sys
import threading
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from flwr.serverapp import Grid

from fedapp.flower.names import warn_once
from fedapp.flower.simulation import is_simulated

__all__ = ["Uploads"]

PULL = "pull_objects"  # the function by which Flower's grid fetches the parts of a message
LIMITS = {"max_time", "max_tries_per_object", "initial_backoff", "backoff_cap"}  # its keyword arguments
FIRST_LOOK, LONGEST_PAUSE = 0.05, 1.0  # seconds
GRACE = 2.0  # seconds for an upload that is under way when the round is over, or when no round waits for it


class Uploads:
    """How long `grid` waits for the rest of a reply: until `until` on `clock`, and at least `GRACE`. Each thread has an
    `until` of its own.

    A reply that is incomplete then comes as an error. A simulation's grid needs no uploads.
    """

    def __init__(self, grid: Grid, clock: Callable[[], float] = time.monotonic) -> None:
        self._of_thread, self._clock = threading.local(), clock
        modules = [sys.modules[kind.__module__] for kind in type(grid).__mro__]
        pulls = [(module, inspect.unwrap(getattr(module, PULL))) for module in modules if hasattr(module, PULL)]
        known = [(module, pull) for module, pull in pulls if inspect.signature(pull).parameters.keys() >= LIMITS]
        for module, pull in known:
            setattr(module, PULL, self._in_time(pull))
        if not known and not is_simulated(grid):
            warn_once(f"{PULL} beside {type(grid).__name__}", "a device lost while uploading delays its round by 180 s")

    @property
    def until(self) -> float:
        return float(getattr(self._of_thread, "until", 0.0))

    @until.setter
    def until(self, moment: float) -> None:
        self._of_thread.until = moment

    def _in_time(self, pull: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(pull)
        def pull_in_time(*arguments: Any, **options: Any) -> Any:
            limits = {
                "max_time": max(GRACE, self.until - self._clock()),
                "max_tries_per_object": None,
                "initial_backoff": FIRST_LOOK,
                "backoff_cap": LONGEST_PAUSE,
            }
            return pull(*arguments, **options | limits)

        return pull_in_time
