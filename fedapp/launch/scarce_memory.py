"""What a machine that has not enough memory for PyTorch to load makes of it, as one message."""

import re

__all__ = ["lack_of_memory"]

SIGNS = re.compile("failed to map segment|cannot allocate memory|cannot create shared object", re.IGNORECASE)


def lack_of_memory(error: ImportError | MemoryError) -> str | None:
    """What to do about an error that a program met while it was loaded; None where memory is not why."""
    if isinstance(error, ImportError) and not SIGNS.search(str(error)):
        return None
    return (
        "memory: PyTorch's libraries cannot be loaded, since this process may not have as much memory or address space"
        f" as they take ({error or 'no memory left'}). Lift the limit on address space: ulimit -v unlimited. A limit on"
        " memory itself, as a container has, may be 2 GB for the default run"
    )
