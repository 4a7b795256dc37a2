"""One of Flower's programs as a child process, whose output is passed on and whose last lines are remembered."""

import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

__all__ = ["Program"]

REMEMBERED = 40  # lines
STOP_TIMEOUT = 15.0  # seconds


class Program:
    """`command`, started at once. `say` gets each line that it prints, without its end."""

    def __init__(
        self, command: Sequence[str], *, home: Path, environment: Mapping[str, str], say: Callable[[str], None]
    ) -> None:
        self._say = say
        self.lines: deque[str] = deque(maxlen=REMEMBERED)
        self.process = subprocess.Popen(
            command,
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C at the terminal is for who started it
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout:
            for line in self.process.stdout:
                text = line.decode(errors="replace").rstrip()
                self.lines.append(text)
                self._say(text)

    def ended(self) -> int | None:
        """Its exit status; None while it runs."""
        status = self.process.poll()
        if status is not None:
            self._reader.join(timeout=1.0)
        return status

    def stop(self) -> None:
        """End it, gently at first."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(timeout=1.0)

    def tail(self) -> str:
        return "\n".join(self.lines)
