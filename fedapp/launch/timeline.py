"""Where the seconds of a command go, from its first line to its last: `timeline.json` in the run directory."""

import json
import time
from pathlib import Path

import psutil

from fedapp.common.files import write_atomically

__all__ = ["FILE", "Timeline"]

FILE = "timeline.json"


class Timeline:
    """Seconds since this process was started, by what was done then. A later run of a sweep has its own, which starts
    with the run."""

    def __init__(self, *, of_process: bool = True) -> None:
        began = psutil.Process().create_time() if of_process else time.time()
        self._offset = time.time() - began - time.perf_counter()
        self._marks: dict[str, float] = {}

    def mark(self, done: str) -> None:
        """`done` has just ended. Of what ends several times the first counts."""
        self._marks.setdefault(done, round(time.perf_counter() + self._offset, 3))

    def write(self, directory: Path) -> None:
        write_atomically(directory / FILE, (json.dumps(self._marks, indent=1) + "\n").encode())
