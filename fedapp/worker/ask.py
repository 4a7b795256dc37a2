"""The thin side: pass a message on to the warm worker, if there is one."""

import os
import socket
import stat
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from flwr.app import Context, RecordDict

from fedapp.worker.frames import Question, receive_answer, send_question

__all__ = ["FOLDER", "ask", "socket_path"]

FOLDER = "FEDAPP_WORKER"  # the environment variable that names the folder of sockets, set by scripts/deploy/supernode
ROOT = Path(__file__).resolve().parents[2]


def socket_path(folder: Path, code: Path) -> Path:
    """Of the worker that runs the code in this folder: a run must not be answered by another run's code."""
    return folder / f"{sha256(str(code).encode()).hexdigest()[:16]}.sock"


def ask(kind: str, content: RecordDict, context: Context) -> RecordDict | None:
    """The worker's reply to a message; None where there is no worker, or it has gone. Raises RuntimeError as it did.

    Where there is none yet, a wish for it is left behind, which whoever tends the SuperNode fulfils.
    """
    folder = Path(os.environ[FOLDER]) if os.environ.get(FOLDER) else None
    if folder is None or not _is_ours(folder):
        return None
    path = socket_path(folder, ROOT)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            send_question(connection, Question(kind, content, context))
            answer = receive_answer(connection)
    except (OSError, ValueError, KeyError):  # none there, one that has gone, or what is none
        _wish(path)
        return None
    context.state = answer.state
    if answer.error:
        raise RuntimeError(answer.error)
    return answer.content


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
