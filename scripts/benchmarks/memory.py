"""Peak memory of a run by role, sampled from outside."""

import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Self

import psutil

__all__ = ["MemoryWatch"]

INTERVAL = 0.5  # seconds: to count the pages of a worker with 2 GB takes it tens of milliseconds each time
# Of a simulation on Flower's engine: who runs the ServerApp, and who trains. Ray names its workers so.
ROLES: Mapping[str, tuple[str, ...]] = {"server": ("flwr-simulation",), "workers": ("ray::",)}
# On the local engine the server is the command itself; what it forks has names, and does the clients' work or waits.
FORKED = ("fedapp-zygote", "fedapp-run", "fedapp-worker")


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
            for process, role in self._with_roles():
                with suppress(psutil.Error):
                    now[role] += process.memory_full_info().uss
            for role, size in now.items():
                self.peak[role] = max(self.peak[role], size)

    def _with_roles(self) -> list[tuple[psutil.Process, str]]:
        found: list[tuple[psutil.Process, str]] = []
        with suppress(psutil.Error):
            below = self._root.children(recursive=True) if self._root is not None else []
            for process in below:
                if (role := self._role(process)) is not None:
                    found.append((process, role))
            if self._root is not None and any(process.name() in FORKED for process in below):
                found.append((self._root, "server"))
        return found

    def _role(self, process: psutil.Process) -> str | None:
        if process.name() in FORKED:
            return "workers"
        line = " ".join(process.cmdline())
        return next((role for role, marks in ROLES.items() if any(mark in line for mark in marks)), None)
