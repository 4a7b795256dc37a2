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

from fedapp.client.worker.frames import Question, receive_answer, send_question

__all__ = ["FOLDER", "ask", "failed_mark", "socket_path", "starting_mark"]

FOLDER = "FEDAPP_WORKER"  # the environment variable that names the folder of sockets, set by scripts/deploy/supernode
ANSWER = 1.0  # seconds until whoever tends the SuperNode has begun to fulfil a wish; it looks five times a second
START = 60.0  # seconds that a worker may take to start
ROOT = Path(__file__).resolve().parents[3]


def socket_path(folder: Path, code: Path) -> Path:
    """Of the worker that runs the code in this folder: a run must not be answered by another run's code."""
    return folder / f"{sha256(str(code).encode()).hexdigest()[:16]}.sock"


def starting_mark(path: Path) -> Path:
    """Of the worker at `path`: a file that is there from its start until it can be reached, or has failed."""
    return path.with_suffix(".starting")


def failed_mark(path: Path) -> Path:
    """A file that is there once it ended before anybody could reach it: not to be wished for again."""
    return path.with_suffix(".failed")


def ask(kind: str, content: RecordDict, context: Context) -> RecordDict | None:
    """The worker's reply to a message; None where there is no worker, or it has gone. Raises RuntimeError as it did.

    Where there is none yet, a wish for it is left behind, which whoever tends the SuperNode fulfils. Then the message
    waits for it: to import everything here as well would take both twice as long.
    """
    folder = Path(os.environ[FOLDER]) if os.environ.get(FOLDER) else None
    if folder is None or not _is_ours(folder):
        return None
    path = socket_path(folder, ROOT)
    connection = _connect(path)
    if connection is None and not failed_mark(path).exists():
        _wish(path)
        connection = _connect(path) if _is_started(path) else None
    if connection is None:
        return None
    try:
        with connection:
            send_question(connection, Question(kind, content, context))
            answer = receive_answer(connection)
    except (OSError, ValueError, KeyError):  # one that has gone, or what is none
        _wish(path)
        return None
    context.state = answer.state
    if answer.error:
        raise RuntimeError(answer.error)
    return answer.content


def _connect(path: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(path))
    except OSError:  # none there
        connection.close()
        return None
    return connection


def _is_started(path: Path) -> bool:
    """Whether a worker at `path` is there after all, having been wished for."""
    if not _comes(starting_mark(path).exists, ANSWER):
        return False
    return _comes(lambda: path.exists() or not starting_mark(path).exists(), START) and path.exists()


def _comes(what: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _wish(path: Path) -> None:
    """Whole or not at all, since it names the code that the worker at `path` will run."""
    unready = path.with_suffix(f".{os.getpid()}")
    with suppress(OSError):  # the work is done all the same
        unready.write_text(str(ROOT))
        unready.replace(path.with_suffix(".wanted"))


def _is_ours(folder: Path) -> bool:
    """Whether nobody else can put a socket there."""
    try:
        found = folder.stat()
    except OSError:
        return False
    return found.st_uid == os.getuid() and not stat.S_IMODE(found.st_mode) & 0o077
