"""The rest of a reply that is still on its way: looked for often, and for no longer than the round lasts.

A SuperLink announces a reply before all of it is uploaded. Flower's grid then looks for the rest after 1, 2, 4, 8 and
then every 10 s, until 180 s after the sender went silent, and takes no other reply meanwhile: a device that is lost
in the middle of an upload holds up everybody, whatever the round's timeout is.
"""

import inspect
import sys
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from flwr.serverapp import Grid

__all__ = ["Uploads"]

PULL = "pull_objects"  # what Flower's grid fetches the parts of a message with
LIMITS = {"max_time", "max_tries_per_object", "initial_backoff", "backoff_cap"}  # which that takes
FIRST_LOOK, LONGEST_PAUSE = 0.05, 1.0  # seconds
GRACE = 2.0  # seconds for what is being uploaded when the time is up, or when nobody waits for it any more


class Uploads:
    """How long `grid` waits for the rest of a reply: until `until`, by the monotonic clock, but `GRACE` at least.

    What is incomplete then comes as an error reply. Where Flower has changed, or the grid needs no uploads, as in a
    simulation, it is left as it is.
    """

    def __init__(self, grid: Grid) -> None:
        self.until = 0.0
        for kind in type(grid).__mro__:
            module = sys.modules[kind.__module__]
            pull = inspect.unwrap(getattr(module, PULL, _none))
            if inspect.signature(pull).parameters.keys() >= LIMITS:
                setattr(module, PULL, self._in_time(pull))

    def _in_time(self, pull: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(pull)
        def pull_in_time(*arguments: Any, **options: Any) -> Any:
            limits = {
                "max_time": max(GRACE, self.until - time.monotonic()),
                "max_tries_per_object": None,
                "initial_backoff": FIRST_LOOK,
                "backoff_cap": LONGEST_PAUSE,
            }
            return pull(*arguments, **options | limits)

        return pull_in_time


def _none() -> None:
    """Of a grid without uploads."""
