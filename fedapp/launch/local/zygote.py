"""The zygote, from which the processes of all runs of a call are forked, and each run's parent of workers."""

import gc
import logging
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fedapp.launch.local.channel import receive, send
from fedapp.launch.local.processes import forget_children, fork, is_single_threaded, write_output_to
from fedapp.launch.local.worker import prepare, work

__all__ = ["Zygote", "report_fault"]


class Zygote:
    """Forked from this process, which must have one thread. What this process has imported so far, all its children
    have. `run` and `reporter` give the socket of a new child; Raises EOFError or OSError where the zygote has gone."""

    def __init__(self) -> None:
        self._connection = fork("fedapp-zygote", _serve)

    def run(self, settings: dict[str, object]) -> socket.socket:
        return self._new({"what": "run", **settings})

    def reporter(self) -> socket.socket:
        return self._new({"what": "reporter"})

    def _new(self, header: dict[str, object]) -> socket.socket:
        send(self._connection, header)
        _, (descriptor,) = receive(self._connection)
        return socket.socket(fileno=descriptor)

    def end(self) -> None:
        """Its children end with it."""
        self._connection.close()


def _serve(connection: socket.socket) -> None:
    forget_children()
    kinds = {"run": ("fedapp-run", _be_parent), "reporter": ("fedapp-report", _report)}
    while True:
        header, _ = receive(connection)
        name, task = kinds[header.pop("what")]
        begin = partial(task, settings=header)

        def child(own: socket.socket, begin: Callable[[socket.socket], None] = begin) -> None:
            connection.close()
            begin(own)

        with fork(name, child) as other:
            send(connection, {}, [other.fileno()])


def _be_parent(connection: socket.socket, settings: dict[str, object]) -> None:
    """Prepare a run, then fork a worker as often as one is asked for."""
    write_output_to(os.open(os.devnull, os.O_WRONLY))  # until there is a log; the program itself says what is wrong
    prepared = prepare(connection, settings)
    forget_children()
    gc.collect()
    while True:
        receive(connection)
        if not is_single_threaded():
            send(connection, {"threads": True})
            continue

        def worker(own: socket.socket) -> None:
            connection.close()
            work(own, prepared)

        with fork("fedapp-worker", worker) as other:
            send(connection, {}, [other.fileno()])


def _report(connection: socket.socket, settings: dict[str, object]) -> None:
    """Write the report of each run that is named, one after the other."""
    os.nice(10)  # others' work is waited for
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it says that it has looked for fonts
    import fedapp.report.page  # noqa: F401 (early: matplotlib takes a second)

    while True:
        send(connection, {"fault": report_fault(Path(receive(connection)[0]["directory"]))})


def report_fault(directory: Path) -> str:
    """Write the report of the run in `directory`. What went wrong; "" where nothing did."""
    from fedapp.report.page import write_report  # matplotlib takes a second to import

    try:
        write_report(directory)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
