"""A Grid without processes: every message goes straight to the ClientApp. What a run computes is the same."""

import itertools
import random
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedapp.client_app import app as client_app
from fedapp.config import Config, compose
from fedapp.server_app import run_federation

SERVER = 1


class InProcessGrid(Grid):
    """`num_nodes` SuperNodes in this process. `shuffle` returns replies in a random order; `tamper` may change them."""

    def __init__(
        self,
        overrides: str,
        num_nodes: int = 2,
        *,
        node_configs: list[dict[str, Any]] | None = None,
        app: ClientApp = client_app,
        shuffle: int | None = None,
        tamper: Callable[[Message], Message | None] = lambda reply: reply,
    ) -> None:
        configs = node_configs or [{"partition-id": i, "num-partitions": num_nodes} for i in range(num_nodes)]
        self.contexts = {
            100 + i: Context(
                run_id=1, node_id=100 + i, node_config=config, state=RecordDict(), run_config={"overrides": overrides}
            )
            for i, config in enumerate(configs)
        }
        self._app, self._tamper = app, tamper
        self._order = random.Random(shuffle) if shuffle is not None else None
        self._replies: dict[str, Message] = {}
        self._ids = itertools.count(1)
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
        return [NodeInfo(node_id=node) for node in self.contexts]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            number = str(next(self._ids))
            message.metadata.__dict__["_message_id"] = number
            ids.append(number)
            self.sent.append(message)
            reply = self._tamper(self._app(message, self.contexts[message.metadata.dst_node_id]))
            if reply is not None:
                self._replies[number] = reply
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        ready = [self._replies.pop(number) for number in sorted(message_ids) if number in self._replies]
        if self._order is not None:
            self._order.shuffle(ready)
        self.received += ready
        return ready

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return self.pull_messages(self.push_messages(messages))


def run_in_process(directory: Path, overrides: str, num_nodes: int = 2, *, report: bool = False, **grid: Any) -> Path:
    """A whole run into `directory`, as the ServerApp does it; its report, which takes a second, on request."""
    config: Config = compose(overrides.split())
    with ExitStack() as stack:
        if not report:
            stack.enter_context(patch("fedapp.server_app.show"))
        run_federation(InProcessGrid(overrides, num_nodes, **grid), config, directory, start=time.perf_counter())
    return directory
