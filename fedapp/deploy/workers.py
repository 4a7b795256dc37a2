"""Warm workers beside a SuperNode: started when a message requests one, and stopped with the SuperNode."""

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from fedapp.client.worker.ask import FOLDER, START_REQUEST, failed_mark, socket_path, starting_mark
from fedapp.deploy.folders import make_private_folder
from fedapp.deploy.program import Program
from fedapp.flower import quick_clientapp

__all__ = ["Workers"]

LONGEST_PATH = 100  # bytes of a socket's path, less than what systems allow
MOST = 2  # workers, each with its data in memory: of a bundle and the one before it. Idle ones end themselves


class Workers:
    """One worker for each app bundle, whose code it runs. Where none can start, messages are handled without."""

    def __init__(self, state: Path, environment: Mapping[str, str], say: Callable[[str], None]) -> None:
        self._folder, self._say = state / "worker", say
        self._environment = dict(environment)
        self._running: dict[Path, Program] = {}
        if len(str(self._folder).encode()) + len("/0123456789abcdef.sock") > LONGEST_PATH:
            say(f"{self._folder}: too long a path for sockets, so every message starts a new process")
            return
        make_private_folder(self._folder)
        for left in self._folder.iterdir():  # from a SuperNode that was killed
            left.unlink()
        self._environment[FOLDER] = str(self._folder)
        self._environment["PATH"] = f"{_programs(state / 'bin')}{os.pathsep}{self._environment.get('PATH', '')}"

    @property
    def environment(self) -> Mapping[str, str]:
        """The SuperNode's environment, by which its messages find the workers."""
        return self._environment

    def tend(self) -> None:
        """Start the workers that messages have requested. To be called several times a second."""
        if FOLDER not in self._environment:
            return
        for path, program in self._running.items():
            if not starting_mark(path).exists():
                continue
            if path.exists():
                starting_mark(path).unlink()
            elif program.ended() is not None:
                starting_mark(path).replace(failed_mark(path))
                self._say("the warm worker did not start, so every message is handled in a process of its own")
        for request in self._folder.glob(f"*{START_REQUEST}"):
            code, path = Path(request.read_text()), request.with_suffix(".sock")
            request.unlink()
            self._running = {at: program for at, program in self._running.items() if program.ended() is None}
            if path in self._running or len(self._running) >= MOST or path != socket_path(self._folder, code):
                continue
            path.unlink(missing_ok=True)  # from a worker that was killed
            starting_mark(path).touch()
            environment = {**self._environment, "PYTHONPATH": str(code)}
            command = [sys.executable, "-m", "fedapp.client.worker", str(path)]
            self._running[path] = Program(command, home=code, environment=environment, say=self._say)

    def stop(self) -> None:
        for program in self._running.values():
            program.stop()
        self._running.clear()


def _programs(folder: Path) -> Path:
    """`folder`, with the `flwr-clientapp` that a SuperNode finds there by name and starts for each message."""
    make_private_folder(folder)
    program = folder / "flwr-clientapp"
    # -P: nothing is imported from the program's folder.
    line = shlex.join([sys.executable, "-P", str(Path(quick_clientapp.__file__))])
    program.write_text(f'#!/bin/sh\nexec {line} "$@"\n', encoding="utf-8")
    program.chmod(0o700)
    return folder
