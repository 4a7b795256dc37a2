"""One SuperLink for every `flwr run` of these tests."""

from collections.abc import Iterator

import pytest
from commands import Flower

from fedapp.launch.local_superlink import LocalSuperLink


@pytest.fixture(scope="session")
def flower() -> Iterator[Flower]:
    superlink = LocalSuperLink()
    superlink.start()
    try:
        superlink.wait_until_ready()
        yield Flower(superlink)
    finally:
        superlink.stop()
