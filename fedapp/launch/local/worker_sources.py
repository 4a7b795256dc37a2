"""Where workers come from: forked off the run's parent, or spawned."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from logging import ERROR
from pathlib import Path
from typing import Any, Protocol

from fedapp.common.errors import FederationError
from fedapp.common.logger import log
from fedapp.launch.local.channel import receive, send
from fedapp.launch.local.zygote import Zygote

__all__ = ["ForkedWorkers", "LocalWorkers", "SpawnedWorkers", "ThreadsRanError"]

ROOT = Path(__file__).resolve().parents[3]
GONE = "the process that starts workers has ended; was it killed?"


class ThreadsRanError(Exception):
    """The run's parent has more than one thread: a part of somebody's own started it. It cannot be forked."""


class LocalWorkers(Protocol):
    def share(self, data: int, log: int) -> None:
        """`data`: a descriptor of what `share_shards` has written; `log`: where workers print to. Both stay open."""

    def new(self) -> socket.socket:
        """The socket of a new worker. Raises FederationError where there can be none."""

    def end(self) -> None:
        """End all workers."""


class ForkedWorkers:
    """Begins at once to prepare the run of `settings` (see `worker.PreparedRun`)."""

    def __init__(self, zygote: Zygote, settings: Mapping[str, Any]) -> None:
        self._parent = zygote.run(dict(settings))

    def share(self, data: int, log: int) -> None:
        try:
            send(self._parent, {}, [data, log])
            _check(receive(self._parent)[0])
        except (EOFError, OSError):
            raise FederationError(GONE) from None

    def new(self) -> socket.socket:
        """Raises ThreadsRanError, too."""
        try:
            send(self._parent, {})
            header, descriptors = receive(self._parent)
        except (EOFError, OSError):
            raise FederationError(GONE) from None
        if header.get("threads"):
            raise ThreadsRanError
        return socket.socket(fileno=descriptors[0])

    def end(self) -> None:
        self._parent.close()


class SpawnedWorkers:
    """New interpreters. Each imports and prepares everything for itself, and maps the data."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = dict(settings)
        self._given: tuple[int, int] | None = None
        self._processes: list[subprocess.Popen[bytes]] = []

    def share(self, data: int, log: int) -> None:
        self._given = os.dup(data), os.dup(log)

    def new(self) -> socket.socket:
        assert self._given is not None
        ours, theirs = socket.socketpair()
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        with theirs:
            number = theirs.fileno()
            command = [sys.executable, "-m", "fedapp.launch.local.worker", str(number)]
            command += [json.dumps(self._settings), str(os.getpid())]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
            output = self._given[1]
            self._processes = [process for process in self._processes if process.poll() is None]
            self._processes.append(
                subprocess.Popen(command, pass_fds=[number], env=environment, stdout=output, stderr=output)
            )
        try:
            send(ours, {}, self._given)
            _check(receive(ours)[0])
        except (EOFError, OSError):
            raise FederationError("a worker did not start; its output says why") from None
        return ours

    def end(self) -> None:
        for process in self._processes:
            with suppress(OSError):
                process.kill()
            process.wait()
        for descriptor in self._given or ():
            os.close(descriptor)
        self._given = None


def _check(header: Mapping[str, Any]) -> None:
    if "fault" in header:
        log(ERROR, "%s", header["trace"])
        raise FederationError(f"a worker could not prepare the run: {header['fault']}")
