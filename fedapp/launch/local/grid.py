"""Flower's Grid over this machine's workers. All happens in the server's thread, whenever it waits for replies."""

import os
import selectors
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from logging import WARNING

from flwr.app import Context, Error, Message

from fedapp.common.errors import FederationError
from fedapp.common.logger import log
from fedapp.flower.hosted_grid import HostedGrid, unavailable
from fedapp.launch.local.channel import receive, send, take_record, write_record

__all__ = ["LocalGrid"]

MOST_DEATHS = 3
FAILED, DIED = 2, 3  # error codes of a reply
ENDED = "no reply: the worker process has ended; it was killed, or out of memory"


@dataclass
class _Worker:
    """`asked`: the message that it works on. `deaths`: how many have ended in its place since the last reply."""

    connection: socket.socket
    asked: tuple[str, Message] | None = None
    deaths: int = 0


class LocalGrid(HostedGrid):
    """`contexts`: the SuperNodes. Any of the `count` workers does any SuperNode's work; but once a worker keeps
    something for a SuperNode from message to message, it does all of it. `new`: the socket of a new worker, for the
    beginning and in place of one that died."""

    def __init__(self, contexts: Mapping[int, Context], count: int, new: Callable[[], socket.socket]) -> None:
        super().__init__()
        self._contexts, self._new = contexts, new
        self._queue: dict[str, Message] = {}  # by id, those that no worker has yet
        self._home: dict[int, _Worker] = {}  # by SuperNode for which something is kept, where
        self._selector = selectors.DefaultSelector()
        self._workers = [_Worker(new()) for _ in range(count)]
        for worker in self._workers:
            self._selector.register(worker.connection, selectors.EVENT_READ, worker)

    @property
    def contexts(self) -> Mapping[int, Context]:
        return self._contexts

    def close(self) -> None:
        self._selector.close()
        for worker in self._workers:
            worker.connection.close()

    def _deliver(self, number: str, message: Message) -> None:
        if message.metadata.dst_node_id not in self._contexts:
            self._replies[number] = [unavailable(message)]
            return
        self._queue[number] = message
        self._employ()

    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._collect(max(0.0, end - time.monotonic())) and time.monotonic() < end:
            pass

    def _collect(self, seconds: float) -> int:
        """Take the replies that are there or come within `seconds`; how many."""
        ready = self._selector.select(seconds)
        # One that is replaced while others' replies are taken has another socket by then.
        return sum(self._take(key.data) for key, _ in ready if key.fileobj is key.data.connection)

    def _employ(self) -> None:
        """Give each worker that has nothing to do the first message that it may have: one at a time, so that it is read
        at once."""
        for worker in self._workers:
            busy = {other.asked[1].metadata.dst_node_id for other in self._workers if other.asked is not None}
            for number, message in self._queue.items() if worker.asked is None else ():
                node = message.metadata.dst_node_id
                if node not in busy and self._home.get(node, worker) is worker:
                    worker.asked = number, self._queue.pop(number)
                    self._send(worker, message)
                    break

    def _send(self, worker: _Worker, message: Message) -> None:
        content = write_record(message.content)
        try:
            about = message.metadata
            send(worker.connection, {"kind": about.message_type, "node": about.dst_node_id}, [content])
        except OSError:  # it ended before it had the message, which another one can have
            assert worker.asked is not None
            (number, _), worker.asked = worker.asked, None
            self._queue = {number: message, **self._queue}
            self._replace(worker)
        finally:
            os.close(content)

    def _take(self, worker: _Worker) -> bool:
        """The reply of a worker, whose socket can be read; False if it has died without having been asked."""
        try:
            header, descriptors = receive(worker.connection)
        except (EOFError, OSError):
            return self._replace(worker)
        assert worker.asked is not None
        (number, message), worker.asked, worker.deaths = worker.asked, None, 0
        if descriptors:
            reply = Message(take_record(descriptors[0]), reply_to=message)
        else:
            reply = Message(Error(FAILED, header["error"]), reply_to=message)
        self._replies[number] = [reply]
        node = message.metadata.dst_node_id
        if header["keeps"]:
            self._home[node] = worker
        else:
            self._home.pop(node, None)
        self._employ()
        return True

    def _replace(self, worker: _Worker) -> bool:
        """Another worker in place of one that has died. The message that it worked on is answered by an error; returns
        whether there was one. Raises FederationError where one after the other ends."""
        worker.deaths += 1
        if worker.deaths > MOST_DEATHS:
            raise FederationError(
                f"{worker.deaths} worker processes in a row have ended without a reply; is there too little memory?"
                " Their output is in the run's log"
            )
        self._selector.unregister(worker.connection)
        worker.connection.close()
        asked, worker.asked = worker.asked, None
        if asked is not None:
            self._replies[asked[0]] = [Message(Error(DIED, ENDED), reply_to=asked[1])]
        lost = [node for node, home in self._home.items() if home is worker]
        for node in lost:
            del self._home[node]
        kept = f", without what it kept for SuperNodes {', '.join(map(str, lost))}" if lost else ""
        log(WARNING, "a worker process has ended; another one takes its place%s", kept)
        worker.connection = self._new()
        self._selector.register(worker.connection, selectors.EVENT_READ, worker)
        self._employ()
        return asked is not None
