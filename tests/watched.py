"""scripts/run.py as a process that is watched, and interfered with."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from commands import PATIENCE, ROOT

__all__ = ["ENDLESS", "Watched", "watched"]

ENDLESS = "model=logistic_regression federation.num_rounds=100000 federation.final_evaluation=false"


class Watched:
    """`directory`: the run directory. `printed`: once it has ended."""

    def __init__(self, process: subprocess.Popen[str], directory: Path) -> None:
        self.process, self.directory = process, directory

    @property
    def rounds(self) -> int:
        """How many rounds are over."""
        metrics = self.directory / "metrics.jsonl"
        return max(0, metrics.read_text().count("\n") - 1) if metrics.exists() else -1

    def wait_for(self, what: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not what():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def of_generation(self, number: int) -> list[psutil.Process]:
        """1: the zygote. 2: a run's parent, and the writer of reports. 3: the workers."""
        found = [psutil.Process(self.process.pid)]
        for _ in range(number):
            found = [child for process in found for child in process.children()]
        return found

    def end(self) -> tuple[int, str]:
        output, _ = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, output


@contextmanager
def watched(
    place: Path,
    overrides: str = ENDLESS,
    *,
    name: str = "run",
    resume: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Watched]:
    """None of its processes is there afterwards, whatever happens. `resume`: go on with the run of this name."""
    directory = place / name
    where = ("--resume", str(directory)) if resume else (f"run.output_dir={directory}",)
    command = [sys.executable, str(ROOT / "scripts" / "run.py"), *overrides.split(), *where]
    with subprocess.Popen(
        command,
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(environment or {})},
        # Whoever starts the tests in the background has them ignore SIGINT, and what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        run = Watched(process, directory)
        try:
            yield run
        finally:
            with suppress(psutil.NoSuchProcess):
                for child in run.family():
                    with suppress(psutil.NoSuchProcess):
                        child.kill()
            process.kill()
