"""Fixtures for the contracts with Flower: every name is checked against the installed version."""

from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import version

import pytest

from fedapp.flower.names import warn_once


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    """The warnings logged so far that a part of Flower is gone. Each test begins as a new process does: with none."""
    warn_once.cache_clear()
    yield lambda: [
        record.getMessage()
        for record in caplog.records
        if record.name == "flwr" and "as fedapp expects it" in record.getMessage()
    ]
    warn_once.cache_clear()


@pytest.fixture
def expect_names() -> Callable[..., None]:
    """Fails where Flower has no such names, and says what uses them."""

    def check(user: str, module: str, *names: str) -> None:
        for name in names:
            try:
                getattr(import_module(module), name)
            except (ImportError, AttributeError):
                pytest.fail(f"flwr {version('flwr')} has no {module}.{name}, which fedapp/flower/{user} uses")

    return check
