"""What a SuperNode has ready for its messages, and what is stopped with it.

Flower starts a process for each message. Here that process is a copy of one that has Flower's imports
(`fedapp.flower.forked_clientapp`), and it passes the message on to a warm worker, which has the run's code and data.
"""

import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from fedapp.client.worker.ask import FOLDER, START_REQUEST, failed_mark, socket_path, starting_mark
from fedapp.common.unix_sockets import LONGEST, can_be_long
from fedapp.deploy.folders import make_private_folder
from fedapp.deploy.program import Program
from fedapp.flower import ask_clientapp, forked_clientapp

__all__ = ["Workers"]

FORKS = "messages.sock"
STEADY = 60.0  # seconds after which the process that is copied is started again, should it have ended
MOST = 2  # workers, each with its data in memory: of a bundle and the one before it. Idle ones end themselves


class Workers:
    """The process that is copied for each message, and one worker for each app bundle, whose code it runs.

    Where one of these cannot start, messages are handled without.
    """

    def __init__(self, state: Path, environment: Mapping[str, str], say: Callable[[str], None]) -> None:
        self._folder, self._say = state / "worker", say
        self._environment = dict(environment)
        self._running: dict[Path, Program] = {}
        self._copied: Program | None = None
        self._due = 0.0  # when that is started, or started again
        longest = self._folder / "0123456789abcdef.sock"
        if len(os.fsencode(longest)) > LONGEST and not can_be_long():
            say(f"{self._folder}: too long a path for sockets, so every message starts a new process")
            return
        make_private_folder(self._folder)
        for left in self._folder.iterdir():  # from a SuperNode that was killed
            left.unlink()
        self._environment[FOLDER] = str(self._folder)
        programs = _programs(state / "bin", self._folder / FORKS)
        self._environment["PATH"] = f"{programs}{os.pathsep}{self._environment.get('PATH', '')}"

    @property
    def environment(self) -> Mapping[str, str]:
        """The SuperNode's environment, by which its messages find the workers."""
        return self._environment

    def tend(self) -> None:
        """Start the workers that messages have requested. To be called several times a second."""
        if FOLDER not in self._environment:
            return
        self._tend_copied()
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

    def _tend_copied(self) -> None:
        """Without it each message starts a second later, so it is not worth more than one try a minute."""
        if (self._copied is not None and self._copied.ended() is None) or time.monotonic() < self._due:
            return
        if self._copied is not None:
            self._say(f"the process that messages are copied from ended ({self._copied.ended()}) and is started again")
        self._due = time.monotonic() + STEADY
        command = [sys.executable, "-P", str(Path(forked_clientapp.__file__)), str(self._folder / FORKS)]
        self._copied = Program(command, home=self._folder.parent, environment=self._environment, say=self._say)

    def stop(self) -> None:
        for program in (*self._running.values(), *filter(None, [self._copied])):
            program.stop()
        self._running.clear()
        self._copied = None


def _programs(folder: Path, forks: Path) -> Path:
    """`folder`, with the `flwr-clientapp` that a SuperNode finds there by name and starts for each message."""
    make_private_folder(folder)
    program = folder / "flwr-clientapp"
    # -I, -S: neither the program's folder nor the installed packages are looked at.
    line = shlex.join([sys.executable, "-I", "-S", str(Path(ask_clientapp.__file__)), str(forks)])
    program.write_text(f'#!/bin/sh\nexec {line} "$@"\n', encoding="utf-8")
    program.chmod(0o700)
    return folder
