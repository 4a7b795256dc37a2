"""The warm side: `python -m fedapp.client.worker SOCKET` answers messages, one after the other, until it is ended.

Who started it has gone, or has had nothing to ask for long: it ends itself. The same code does the work as without a
worker.
"""

import logging
import os
import socket
import sys
import time
from pathlib import Path

from flwr.app import RecordDict

from fedapp.client.handlers import handle
from fedapp.client.worker.frames import Answer, receive_question, send_answer

log = logging.getLogger("flwr")

POLL = 2.0  # seconds
IDLE = 900.0  # seconds without a message after which a worker makes room


def serve(path: Path) -> None:
    parent = os.getppid()
    unready = path.with_suffix(".new")
    unready.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        before = os.umask(0o177)  # for nobody but its owner, from the moment it is there
        try:
            listener.bind(str(unready))
        finally:
            os.umask(before)
        listener.listen()
        unready.replace(path)  # whoever finds it can connect
        listener.settimeout(POLL)
        last = time.monotonic()
        while os.getppid() == parent and time.monotonic() - last < IDLE:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            with connection:
                connection.settimeout(None)
                _answer(connection)
            last = time.monotonic()
    path.unlink(missing_ok=True)


def _answer(connection: socket.socket) -> None:
    try:
        question = receive_question(connection)
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("no message: %s", error)
        return
    try:
        found = Answer(handle(question.kind, question.content, question.context), question.context.state)
    except Exception as error:  # its text is what may leave; the rest has been logged
        found = Answer(RecordDict(), question.context.state, str(error))
    try:
        send_answer(connection, found)
    except OSError as error:
        log.warning("nobody waits for this answer any more: %s", error)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
