"""The order of tests, configs for hundreds of them in little time, no waits for a disk, and logging as the test before
found it.

Files that start processes come first, so that none of them is left when the rest is done.
"""

import importlib
import os
from collections.abc import Iterator

import pytest
from kept_logging import kept_logging
from quick_compose import quick


@pytest.fixture(scope="session", autouse=True)
def _quick_compose() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        module = importlib.import_module("fedapp.config.compose")
        patch.setattr(module, "hydra_compose", quick(module.hydra_compose))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_disks() -> Iterator[None]:
    """A run waits for the disk a dozen times, against a loss of power that no test has. Tests of what is synced when
    put their own function in its place, and processes that tests start do wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: os.fstat(descriptor) and None)  # still refuses a closed one
        yield


@pytest.fixture(autouse=True)
def _kept_logging() -> Iterator[None]:
    with kept_logging():
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    longest = ("tests/deploy/", "tests/end_to_end/", "tests/launch/", "tests/docs/", "tests/test_bench")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    root = items[0].config.rootpath if items else None

    def rank(item: pytest.Item) -> int:
        if item.path not in slow:
            return 2
        return 0 if item.path.relative_to(root).as_posix().startswith(longest) else 1

    items.sort(key=rank)  # stable: files stay together, and tests of a file in their order
