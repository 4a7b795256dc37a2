"""Reports in the background: any number of them, in order, whatever becomes of their writer."""

import socket
import threading
from pathlib import Path
from typing import cast

import pytest

from fedapp.launch.local.channel import receive, send
from fedapp.launch.local.reports import Reports
from fedapp.launch.local.zygote import Zygote


class Writer:
    """In place of the zygote: a thread that writes reports, and ends after `most` of them."""

    def __init__(self, most: int = 10**6) -> None:
        self.written, self.most = list[str](), most

    def reporter(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        threading.Thread(target=self._serve, args=(theirs,), daemon=True).start()
        return ours

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while len(self.written) < self.most:
                    directory = receive(connection)[0]["directory"]
                    self.written.append(directory)
                    send(connection, {"fault": "no plots" if directory.endswith("13") else ""})
            except (EOFError, OSError):
                pass


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What this process writes itself."""
    written = list[str]()
    monkeypatch.setattr("fedapp.report.page.write_report", lambda directory: written.append(str(directory)))
    return written


def test_a_sweep_of_a_thousand_runs_waits_for_none(here: list[str]) -> None:
    writer = Writer()
    reports = Reports(cast(Zygote, writer))
    for number in range(1000):
        reports.write(Path(f"/runs/{number:04}"))
    faults = reports.finish()
    assert writer.written == [f"/runs/{number:04}" for number in range(1000)]
    assert here == []
    assert len(faults) == 10
    assert faults[0] == "/runs/0013: the report could not be written: no plots"
    assert reports.finish() == []
    reports.end()


def test_if_the_writer_ends_this_process_writes_the_rest(here: list[str]) -> None:
    writer = Writer(most=3)
    reports = Reports(cast(Zygote, writer))
    for number in range(6):
        reports.write(Path(f"/runs/{number}"))
    assert reports.finish() == []
    assert [*writer.written, *here] == [f"/runs/{number}" for number in range(6)]
    assert len(here) == 3
    reports.end()


def test_without_a_zygote_this_process_writes_them(here: list[str]) -> None:
    reports = Reports(None)
    reports.write(Path("/runs/0"))
    assert here == []
    reports.finish()
    assert here == ["/runs/0"]
