"""A Grid without processes: every message goes straight to the ClientApp. What a run computes is the same."""

import itertools
import math
import random
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedapp.client_app import app as client_app
from fedapp.config import Config, compose
from fedapp.server.run import run_federation

SERVER = 1


Tampered = Message | list[Message] | None


class InProcessGrid(Grid):
    """`num_nodes` SuperNodes in this process.

    `shuffle` returns replies in a random order; `tamper` may change, double or withhold them; `delay` is how many
    seconds a reply takes. Whoever is taken out of `contexts` has gone, and whoever is put in has come.
    """

    def __init__(
        self,
        overrides: str,
        num_nodes: int = 2,
        *,
        node_configs: list[dict[str, Any]] | None = None,
        app: ClientApp = client_app,
        shuffle: int | None = None,
        tamper: Callable[[Message], Tampered] = lambda reply: reply,
        delay: Callable[[Message], float] = lambda reply: 0.0,
    ) -> None:
        configs = node_configs or [{"partition-id": i, "num-partitions": num_nodes} for i in range(num_nodes)]
        self.contexts = {100 + i: make_context(100 + i, config, overrides) for i, config in enumerate(configs)}
        self._app, self._tamper, self._delay = app, tamper, delay
        self._order = random.Random(shuffle) if shuffle is not None else None
        self._replies: dict[str, tuple[float, list[Message]]] = {}
        self._ids = itertools.count(1)
        self.state: object = None  # a simulation's grid has one
        self.names: dict[int, str] = {}  # under which SuperNodes' keys are registered
        self.sent: list[Message] = []
        self.received: list[Message] = []
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, SERVER

    def set_run(self, run: Run) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Run:
        return Run.create_empty(1)

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return list(self.contexts)

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [NodeInfo(node_id=node, name=self.names.get(node, "")) for node in self.contexts]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            number = str(next(self._ids))
            message.metadata.__dict__["_message_id"] = number
            ids.append(number)
            self.sent.append(message)
            replies = self._answer(message)
            if replies:
                self._replies[number] = (time.monotonic() + self._delay(replies[0]), replies)
        return ids

    def _answer(self, message: Message) -> list[Message]:
        node = message.metadata.dst_node_id
        if node not in self.contexts:
            reply = Message(Error(3, "Node Unavailable"), reply_to=message)
            reply.metadata.__dict__["_src_node_id"] = SERVER  # as the SuperLink does
            return [reply]
        try:
            reply = self._app(message, self.contexts[node])
        except Exception as error:  # as the SuperNode does
            reply = Message(Error(2, str(error)), reply_to=message)
        tampered = self._tamper(reply)
        if tampered is None:
            return []
        return tampered if isinstance(tampered, list) else [tampered]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        now = time.monotonic()
        there = [
            number for number in sorted(message_ids) if number in self._replies and self._replies[number][0] <= now
        ]
        ready = [reply for number in there for reply in self._replies.pop(number)[1]]
        if self._order is not None:
            self._order.shuffle(ready)
        self.received += ready
        return ready

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        waiting, found = set(self.push_messages(messages)), list[Message]()
        end = time.monotonic() + (math.inf if timeout is None else timeout)
        while waiting and time.monotonic() < end:
            for reply in self.pull_messages(waiting):
                waiting.discard(reply.metadata.reply_to_message_id)
                found.append(reply)
            time.sleep(0.002)
        return found


def make_context(node_id: int, node_config: dict[str, Any], overrides: str) -> Context:
    return Context(
        run_id=1, node_id=node_id, node_config=node_config, state=RecordDict(), run_config={"overrides": overrides}
    )


def run_in_process(directory: Path, overrides: str, num_nodes: int = 2, *, report: bool = False, **grid: Any) -> Path:
    """A whole run into `directory`, as the ServerApp does it; its report, which takes a second, on request."""
    return run_on(InProcessGrid(overrides, num_nodes, **grid), directory, overrides, report=report)


def run_on(grid: Grid, directory: Path, overrides: str, *, report: bool = False) -> Path:
    """The same on a grid of one's own."""
    config: Config = compose(overrides.split())
    with ExitStack() as stack:
        if not report:
            stack.enter_context(patch("fedapp.server.run.show"))
        run_federation(grid, config, directory, time.perf_counter(), overrides.split())
    return directory
