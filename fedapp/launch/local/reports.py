"""Reports, written by a process of their own: beside the next run of a sweep, and with matplotlib imported early."""

import socket
from pathlib import Path

from fedapp.launch.local.channel import receive, send
from fedapp.launch.local.zygote import Zygote

__all__ = ["Reports"]


class Reports:
    """`zygote`: of which the process is forked. Without one, reports are written by this process when it ends."""

    def __init__(self, zygote: Zygote | None) -> None:
        self._writer: socket.socket | None = zygote.reporter() if zygote is not None else None
        self._wanted: list[Path] = []

    def write(self, directory: Path) -> None:
        """Have the report of the finished run in `directory` written, sooner or later."""
        self._wanted.append(directory)
        if self._writer is not None:
            try:
                send(self._writer, {"directory": str(directory)})
            except OSError:
                self._writer = None  # it was killed

    def finish(self) -> list[str]:
        """Wait until all reports are written. Returns what went wrong with any, by directory."""
        faults = []
        for directory in self._wanted:
            if fault := self._fault(directory):
                faults.append(f"{directory}: the report could not be written: {fault}")
        self._wanted = []
        return faults

    def _fault(self, directory: Path) -> str:
        if self._writer is not None:
            try:
                return str(receive(self._writer)[0].get("fault", ""))
            except (EOFError, OSError):
                self._writer = None
        from fedapp.report.page import write_report  # matplotlib takes a second to import

        try:
            write_report(directory)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def end(self) -> None:
        if self._writer is not None:
            self._writer.close()
