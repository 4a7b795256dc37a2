"""The warm side: `python -m fedapp.client.worker SOCKET` handles messages one after the other until it is stopped.

It ends itself when its parent process has ended, or after `IDLE` seconds without a message. The same code handles a
message as without a worker.
"""

import logging
import os
import socket
import sys
import time
from pathlib import Path

from flwr.app import RecordDict

from fedapp.client.handlers import handle
from fedapp.client.worker.frames import WorkerReply, receive_request, send_reply
from fedapp.common.unix_sockets import short_path

log = logging.getLogger("flwr")

POLL = 2.0  # seconds
IDLE = 900.0  # seconds without a message


def serve(path: Path) -> None:
    parent = os.getppid()
    unready = path.with_suffix(".new")
    unready.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        before = os.umask(0o177)  # readable by its owner only, from the moment it exists
        try:
            with short_path(unready) as name:
                listener.bind(name)
        finally:
            os.umask(before)
        listener.listen()
        unready.replace(path)  # under this name it can be connected to
        listener.settimeout(POLL)
        last = time.monotonic()
        while os.getppid() == parent and time.monotonic() - last < IDLE:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            with connection:
                connection.settimeout(None)
                _handle(connection)
            last = time.monotonic()
    path.unlink(missing_ok=True)


def _handle(connection: socket.socket) -> None:
    try:
        request = receive_request(connection)
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("no message: %s", error)
        return
    try:
        reply = WorkerReply(handle(request.kind, request.content, request.context), request.context.state)
    except Exception as error:  # its text may leave the device; the handler has logged the rest
        reply = WorkerReply(RecordDict(), request.context.state, str(error))
    try:
        send_reply(connection, reply)
    except OSError as error:
        log.warning("the process that asked for this reply has gone: %s", error)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
