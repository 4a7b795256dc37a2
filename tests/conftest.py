"""The order of tests, configs for hundreds of them in little time, no waits for a disk, and logging as the test before
found it.

Files that start processes come early, so that none of them is left when the rest is done, and each is followed by two
that work in their own process, which have the cores while processes wait for each other.
"""

import importlib
import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

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
    starting = ("tests/deploy/", "tests/end_to_end/", "tests/launch/", "tests/docs/", "tests/test_bench")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    root = items[0].config.rootpath if items else None
    files: list[dict[Path, list[pytest.Item]]] = [{}, {}, {}]  # that start processes, other slow ones, and the rest
    for item in items:
        rank = 2 if item.path not in slow else int(not item.path.relative_to(root).as_posix().startswith(starting))
        files[rank].setdefault(item.path, []).append(item)
    waiting, working, short = (iter(each.values()) for each in files)
    ordered = [next(each, []) for _ in range(len(files[0]) + len(files[1])) for each in (waiting, working, working)]
    items[:] = chain.from_iterable([*ordered, *short])
