"""Flower's `flwr-clientapp` by a fork, for the messages of one SuperNode: `python -P forked_clientapp.py SOCKET`.

A SuperNode starts a process for each message, whose imports take a second of a core. This process has them ready, and
each message gets a copy of it: a process of its own, as Flower has it, in a few hundredths of a second.
`ask_clientapp.py` is the program that the SuperNode finds by Flower's name; it asks here and ends as
the copy does.

What is copied must be quiet, so this process starts no thread and opens nothing but its socket, which lies in a folder
that only its owner can enter. Like `quick_clientapp.py`, it imports nothing of fedapp: a message is handled by the
fedapp of its run's bundle, and this is the device's own.
"""

import gc
import os
import random
import runpy
import signal
import socket
import struct
import sys
from pathlib import Path

POLL = 2.0  # seconds between looks whether the process that started this one is still there
STREAMS = 2  # standard output and error, which come with a request
LENGTH = struct.Struct("!I")  # of the arguments, with a zero byte after each
LONGEST = 1 << 16  # bytes of them
TIMEOUT = 5.0  # seconds in which a request must be there; it is sent at once


def message(path: Path) -> tuple[list[str], socket.socket] | None:
    """In a copy, the arguments of its message and the connection to who asked. None once the parent has ended."""
    parent, home = os.getppid(), Path.cwd()
    path.unlink(missing_ok=True)  # of one that was killed
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(path.parent)  # the name of a socket that is bound has some hundred bytes at most
        listener.bind(path.name)
        os.chdir(home)
        listener.listen()
        listener.settimeout(POLL)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system clears up after copies
        while os.getppid() == parent:
            try:
                connection, _ = listener.accept()
                connection.settimeout(TIMEOUT)
                arguments, streams = request(connection)
            except (OSError, ValueError):  # nobody asked, or whoever did has gone
                continue
            if not os.fork():
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for target, stream in enumerate(streams, start=1):
                    os.dup2(stream, target)
                    os.close(stream)
                return arguments, connection
            for stream in streams:
                os.close(stream)
            connection.close()
    path.unlink(missing_ok=True)
    return None


def request(connection: socket.socket) -> tuple[list[str], list[int]]:
    """The arguments and streams of a message. Raises ValueError for anything else."""
    head, streams, _, _ = socket.recv_fds(connection, LENGTH.size, STREAMS)
    length = LENGTH.unpack(head)[0] if len(head) == LENGTH.size else 0
    found = bytearray()
    while len(found) < min(length, LONGEST) and (part := connection.recv(length - len(found))):
        found += part
    if len(streams) != STREAMS or not found or len(found) != length:
        for stream in streams:
            os.close(stream)
        connection.close()
        raise ValueError("no request")
    return [os.fsdecode(argument) for argument in bytes(found[:-1]).split(b"\0")], streams


if __name__ == "__main__":
    gc.disable()  # imports leave no garbage
    command = runpy.run_path(str(Path(__file__).with_name("quick_clientapp.py")))["command"]()
    gc.enable()
    gc.freeze()  # what is there stays as it is, so that copies share its memory
    if (found := message(Path(sys.argv[1]))) is not None:
        random.seed()  # otherwise all copies would draw the same numbers
        sys.modules["numpy"].random.seed()
        sys.argv = ["flwr-clientapp", *found[0]]
        status = 1
        try:
            command()
            status = 0
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
            raise
        finally:
            with found[1]:
                found[1].send(bytes([status & 0xFF]))
