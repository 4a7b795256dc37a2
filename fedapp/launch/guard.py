"""Ends Flower's processes and all that they started, also when the program that started them was killed.

As a program (`guard.py HOME [--keep]`) it waits for the end of its standard input, which the system closes together
with the program that holds the other side, however that one ends.
"""

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

__all__ = ["Guard", "end_family"]

STOP_TIMEOUT = 10.0  # seconds


def end_family(home: Path, *, keep: bool = False) -> None:
    """End every process whose FLWR_HOME is `home` or lies in it, their descendants, and remove `home` unless `keep`.

    Ray puts its processes into groups and sessions of their own, and they outlive their parents; what they inherit from
    the SuperLink is its environment, which some of them hide behind a title of their own.
    """
    family = {process for process in psutil.process_iter() if _belongs(process, home)}
    for process in list(family):
        with suppress(psutil.NoSuchProcess):
            family.update(process.children(recursive=True))
    processes = list(family)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in psutil.wait_procs(processes, timeout=STOP_TIMEOUT)[1]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    if not keep:
        shutil.rmtree(home, ignore_errors=True)


def _belongs(process: psutil.Process, home: Path) -> bool:
    with suppress(psutil.Error, OSError):
        named = process.environ().get("FLWR_HOME", "")
        return named == str(home) or named.startswith(f"{home}{os.sep}")
    return False


class Guard:
    """Watches over a family of processes from now on: whatever ends this program, none of them is left behind.

    `keep`: whether `home` stays, as it must where keys or a database lie in it.
    """

    def __init__(self, home: Path, *, keep: bool = False) -> None:
        self._home, self._keep = home, keep
        command = [sys.executable, __file__, str(home), *(["--keep"] if keep else [])]
        # Not in the family itself, whatever FLWR_HOME this program was given.
        environment = {name: value for name, value in os.environ.items() if name != "FLWR_HOME"}
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, start_new_session=True)

    def end(self) -> None:
        """End the family, and the guard with it."""
        end_family(self._home, keep=self._keep)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


if __name__ == "__main__":
    sys.stdin.buffer.read()
    end_family(Path(sys.argv[1]), keep="--keep" in sys.argv[2:])
