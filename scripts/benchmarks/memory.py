"""Peak memory of a run by role, sampled from outside."""

import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Self

import psutil

__all__ = ["MemoryWatch"]

INTERVAL = 0.5  # seconds: to count the pages of a worker with 2 GB takes it tens of milliseconds each time
# Of a simulation: who runs the ServerApp, and who trains. Ray names its workers so.
ROLES: Mapping[str, tuple[str, ...]] = {"server": ("flwr-simulation",), "workers": ("ray::",)}


class MemoryWatch:
    """While it is entered, the largest memory of the processes below the one given to it: for each role the sum over
    its processes of what nobody shares with them (USS), in bytes."""

    def __init__(self) -> None:
        self.peak = dict.fromkeys(ROLES, 0)
        self._root: psutil.Process | None = None
        self._roles: dict[int, str] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __call__(self, pid: int) -> None:
        """Watch over this process and all below it."""
        self._root = psutil.Process(pid)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._over.wait(INTERVAL):
            now = dict.fromkeys(ROLES, 0)
            for process in self._below():
                with suppress(psutil.Error):
                    if (role := self._role(process)) is not None:
                        now[role] += process.memory_full_info().uss
            for role, size in now.items():
                self.peak[role] = max(self.peak[role], size)

    def _below(self) -> list[psutil.Process]:
        with suppress(psutil.Error):
            return self._root.children(recursive=True) if self._root is not None else []
        return []

    def _role(self, process: psutil.Process) -> str | None:
        line = " ".join(process.cmdline())
        return next((role for role, marks in ROLES.items() if any(mark in line for mark in marks)), None)
