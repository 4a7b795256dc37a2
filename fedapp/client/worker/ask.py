"""The thin side: pass a message on to the warm worker, if there is one."""

import os
import socket
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from flwr.app import Context, RecordDict

from fedapp.client.worker.frames import WorkerRequest, receive_reply, send_request
from fedapp.common.unix_sockets import short_path
from fedapp.flower.serde import can_serialise

__all__ = ["FOLDER", "START_REQUEST", "ask", "failed_mark", "socket_path", "starting_mark"]

FOLDER = "FEDAPP_WORKER"  # the environment variable that names the folder of sockets, set by scripts/deploy/supernode
START_REQUEST = ".start-request"  # suffix of a file by which a message asks the supervisor for a worker
PICKED_UP = 1.0  # seconds until the SuperNode's supervisor has acted on one; it looks five times a second
START = 60.0  # seconds that a worker may take to start
ROOT = Path(__file__).resolve().parents[3]


def socket_path(folder: Path, code: Path) -> Path:
    """The socket of the worker that runs the code in this folder. Each run's messages are handled by its own code."""
    return folder / f"{sha256(str(code).encode()).hexdigest()[:16]}.sock"


def starting_mark(path: Path) -> Path:
    """A file that exists from the start of the worker at `path` until it can be reached or has failed."""
    return path.with_suffix(".starting")


def failed_mark(path: Path) -> Path:
    """A file that exists once the worker at `path` ended before it could be reached. No start is requested again."""
    return path.with_suffix(".failed")


def ask(kind: str, content: RecordDict, context: Context) -> RecordDict | None:
    """The worker's reply to a message; None where there is no worker, or it has gone. Raises the worker's RuntimeError.

    Where there is no worker yet, it asks the SuperNode's supervisor to start one, and waits: imports in both processes
    at once would take twice as long.
    """
    folder = Path(os.environ[FOLDER]) if os.environ.get(FOLDER) else None
    if folder is None or not _is_ours(folder) or not can_serialise():
        return None
    path = socket_path(folder, ROOT)
    connection = _connect(path)
    if connection is None and not failed_mark(path).exists():
        _request_start(path)
        connection = _connect(path) if _is_started(path) else None
    if connection is None:
        return None
    try:
        with connection:
            send_request(connection, WorkerRequest(kind, content, context))
            reply = receive_reply(connection)
    except (OSError, ValueError, KeyError):  # the worker has gone, or sent something else
        _request_start(path)
        return None
    context.state = reply.state
    if reply.error:
        raise RuntimeError(reply.error)
    return reply.content


def _connect(path: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        with short_path(path) as name:
            connection.connect(name)
    except OSError:  # none there
        connection.close()
        return None
    return connection


def _is_started(path: Path) -> bool:
    """Whether the worker at `path`, whose start was requested, has come up."""
    if not _comes(starting_mark(path).exists, PICKED_UP):
        return False
    return _comes(lambda: path.exists() or not starting_mark(path).exists(), START) and path.exists()


def _comes(what: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _request_start(path: Path) -> None:
    """Written atomically, since it names the code that the worker at `path` will run."""
    unready = path.with_suffix(f".{os.getpid()}")
    with suppress(OSError):  # without a worker, the message is handled in this process
        unready.write_text(str(ROOT))
        unready.replace(path.with_suffix(START_REQUEST))


def _is_ours(folder: Path) -> bool:
    """Whether no other user can create a socket there."""
    try:
        found = folder.stat()
    except OSError:
        return False
    return found.st_uid == os.getuid() and not stat.S_IMODE(found.st_mode) & 0o077
