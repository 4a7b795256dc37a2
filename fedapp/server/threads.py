"""Threads of torch for work beside others' on the same cores."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["one_thread"]


@contextmanager
def one_thread(wanted: bool) -> Iterator[None]:
    """While a simulation's workers keep all cores busy a second thread of the server's is one that the first waits for:
    20 ms for what takes 1 ms. Nothing changes where this is not `wanted`."""
    before = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if wanted:
            torch.set_num_threads(before)
