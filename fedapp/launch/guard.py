"""Ends a SuperLink and all that it started, also when the program that started it was killed.

As a program (`guard.py HOME`) it waits for the end of its standard input, which the system closes together with the
program that holds the other side, however that one ends.
"""

import shutil
import sys
from contextlib import suppress
from pathlib import Path

import psutil

__all__ = ["end_family"]

STOP_TIMEOUT = 10.0  # seconds


def end_family(home: Path) -> None:
    """End every process whose FLWR_HOME is `home`, their descendants, and remove `home`.

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
    shutil.rmtree(home, ignore_errors=True)


def _belongs(process: psutil.Process, home: Path) -> bool:
    with suppress(psutil.Error, OSError):
        return process.environ().get("FLWR_HOME") == str(home)
    return False


if __name__ == "__main__":
    sys.stdin.buffer.read()
    end_family(Path(sys.argv[1]))
