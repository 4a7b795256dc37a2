"""How the processes of a run begin, and that none outlives the one that it works for."""

import ctypes
import gc
import io
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress

__all__ = ["begin", "can_fork", "forget_children", "fork", "is_single_threaded", "write_output_to"]

SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15  # linux/prctl.h


def can_fork() -> bool:
    """Whether a process can be forked off that ends with its parent. Elsewhere (macOS, Windows) libraries do not work
    in a process that was forked."""
    return sys.platform == "linux"


def is_single_threaded() -> bool:
    """Whether this process has one thread. A fork of another one may inherit a lock that nobody will release."""
    return len(os.listdir("/proc/self/task")) == 1


def fork(name: str, work: Callable[[socket.socket], None]) -> socket.socket:
    """Begin `work` in a new process, which is given one end of a pair of sockets; the other end is returned. The
    process ends with `work`, and is killed when this one ends. Nobody waits for it. `name`: what `top` calls it, 15
    characters at most.

    It must be called from the process's first thread.
    """
    ours, theirs = socket.socketpair()
    parent = os.getpid()
    _flush()  # or both processes would print what still lies in a buffer
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the new process has its own answer to them
    gc.freeze()  # or the collector would write to, and so copy, every page that is shared
    if os.fork():
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        return ours
    status = 1
    try:
        ours.close()
        begin(name, parent)
        for number, action in (
            (signal.SIGINT, signal.SIG_IGN),  # Ctrl-C at the terminal reaches all; the program decides
            (signal.SIGTERM, signal.SIG_DFL),
            (signal.SIGHUP, signal.SIG_DFL),
            (signal.SIGCHLD, signal.SIG_DFL),
        ):
            signal.signal(number, action)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        work(theirs)
        status = 0
    except (EOFError, ConnectionError):  # the other side has gone
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        _flush()
        os._exit(status)  # what the parent would do at its end is not for this process


def begin(name: str, parent: int) -> None:
    """Give this process a name, and have the system kill it when `parent` ends, which may have happened already. Linux
    only."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NAME, name.encode())
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before it could be asked for
        os._exit(1)


def write_output_to(descriptor: int) -> None:
    """Have whatever this process prints go there; closes `descriptor`."""
    _flush()
    for own in (1, 2):
        os.dup2(descriptor, own)
    os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what is printed must be there should this process be killed
            stream.reconfigure(line_buffering=True, errors="backslashreplace")


def forget_children() -> None:
    """Have the system bury those that end; nobody waits for them. Not where somebody's own code runs, which may."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
