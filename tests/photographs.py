"""Fewer of the solar cells than there are, for whole runs that take seconds."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest
import torch

from fedapp.data.source import Pooled
from fedapp.data.sources.solar import SolarCells

__all__ = ["one_in"]


@contextmanager
def one_in(step: int) -> Iterator[None]:
    """Within it the training data are every `step`-th photograph; the server's test data are whole."""
    whole = SolarCells.pooled

    def some(source: SolarCells) -> Pooled:
        found = whole(source)
        return Pooled(found.train.take(torch.arange(0, len(found.train), step)), found.test)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SolarCells, "pooled", cache(some))
        yield
