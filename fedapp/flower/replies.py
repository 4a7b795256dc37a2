"""Take no more of a reply than it may have, and let no malformed one end the run.

Flower's grid of a deployment fetches whatever parts a SuperNode has announced, keeps them all, and makes a message of
them. What is too large, or is no message, then is an error in place of the reply, as for one that never came whole.

Needs the grid's module (`flwr.superlink.grid.http_grid`) to fetch by `pull_objects`, with the keyword arguments in
`PARAMETERS`, the message's own id last, and to make messages by `inflate_object_from_contents`; and `ObjectPullError`
(flwr 1.42). Otherwise replies are taken whole, and what is no message ends the run. A simulation has no such grid.
"""

import inspect
import sys
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from fedapp.flower.names import find, warn_once
from fedapp.flower.simulation import is_simulated

__all__ = ["Replies"]

PULL, INFLATE = "pull_objects", "inflate_object_from_contents"
PARAMETERS = {"object_ids", "pull_object_fn"}
UNBOUNDED = "replies are taken whole, however large, and a malformed one ends the run"


class Replies:
    """Bounds what `grid` takes of each reply: `largest` bytes."""

    def __init__(self, grid: Grid) -> None:
        self.largest = sys.maxsize
        self._of_thread = threading.local()  # the message that a thread has made, until the grid asks for it there
        self.closed = False  # nobody waits for uploads any more: an interpreter that ends waits for threads
        error = find("flwr.supercore.inflatable.inflatable_utils", "ObjectPullError", otherwise=UNBOUNDED)
        modules = {sys.modules[kind.__module__] for kind in type(grid).__mro__}
        known = [module for module in modules if hasattr(module, PULL) and hasattr(module, INFLATE)]
        known = [m for m in known if inspect.signature(getattr(m, PULL)).parameters.keys() >= PARAMETERS]
        for module in known if error is not None else []:
            inflate = inspect.unwrap(getattr(module, INFLATE))
            setattr(module, PULL, self._bounded(getattr(module, PULL), inflate, error))
            setattr(module, INFLATE, self._made_or(inflate))
        if not known and not is_simulated(grid):
            warn_once(f"{PULL} and {INFLATE} beside {type(grid).__name__}", UNBOUNDED)

    def _bounded(self, pull: Callable[..., Any], inflate: Callable[..., Any], error: Any) -> Callable[..., Any]:
        """`pull`, which makes the message as well: what goes wrong there is the sender's fault."""

        @wraps(pull)
        def pull_bounded(object_ids: list[str], pull_object_fn: Callable[[str], bytes], **options: Any) -> Any:
            lock, taken = threading.Lock(), 0

            def fetch(name: str) -> bytes:
                nonlocal taken
                if self.closed:
                    raise error(name, "the run is over")
                content = pull_object_fn(name)
                with lock:
                    taken += len(content)
                    if taken > self.largest:
                        raise error(name, f"it is larger than {self.largest} bytes")
                return content

            found, message = pull(object_ids, fetch, **options), object_ids[-1]
            try:
                made = inflate(message, found)
            except Exception as fault:  # whatever it is made of
                raise error(message, f"it is no message: {type(fault).__name__}") from None
            if not isinstance(made, Message):
                raise error(message, f"it is no message: {type(made).__name__}")
            self._of_thread.made = {message: made}
            return found

        return pull_bounded

    def _made_or(self, inflate: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(inflate)
        def made(object_id: str, *arguments: Any, **options: Any) -> Any:
            mine = getattr(self._of_thread, "made", {})
            return mine.pop(object_id) if object_id in mine else inflate(object_id, *arguments, **options)

        return made
