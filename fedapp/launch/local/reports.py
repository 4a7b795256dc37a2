"""Reports, written by a process of their own: beside the next run of a sweep, and with matplotlib imported early."""

import select
import socket
from contextlib import suppress
from pathlib import Path

from fedapp.launch.local.channel import receive, send
from fedapp.launch.local.zygote import Zygote, report_fault

__all__ = ["Reports"]


class Reports:
    """`zygote`: of which the process is forked. Without one, or once that was killed, reports are written by this
    process, when it finishes."""

    def __init__(self, zygote: Zygote | None) -> None:
        self._writer: socket.socket | None = None
        if zygote is not None:
            with suppress(EOFError, OSError):
                self._writer = zygote.reporter()
        self._wanted: list[Path] = []  # the first one is being written, if the writer is there
        self._faults: list[str] = []
        self._asked = False

    def write(self, directory: Path) -> None:
        """Have the report of the finished run in `directory` written, sooner or later."""
        self._wanted.append(directory)
        self._go_on(wait=False)

    def finish(self) -> list[str]:
        """Wait until all reports are written. Returns what went wrong with any."""
        while self._wanted:
            self._go_on(wait=True)
        faults, self._faults = self._faults, []
        return faults

    def end(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _go_on(self, *, wait: bool) -> None:
        """Take the writer's answer, if it is there or waited for, and ask for the next report: one at a time, so that
        neither side's messages pile up."""
        try:
            if self._writer is not None and self._asked and (wait or select.select([self._writer], [], [], 0)[0]):
                self._done(str(receive(self._writer)[0]["fault"]))
            if self._writer is not None and self._wanted and not self._asked:
                send(self._writer, {"directory": str(self._wanted[0])})
                self._asked = True
        except (EOFError, OSError):
            self.end()
            self._asked = False
        if self._writer is None and wait and self._wanted:
            self._done(report_fault(self._wanted[0]))

    def _done(self, fault: str) -> None:
        directory, self._asked = self._wanted.pop(0), False
        if fault:
            self._faults.append(f"{directory}: the report could not be written: {fault}")
