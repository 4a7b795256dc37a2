"""A Grid without processes: every message goes straight to the ClientApp. What a run computes is the same."""

import math
import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fedapp.client_app import app as client_app
from fedapp.config import Config, compose
from fedapp.flower.hosted_grid import HostedGrid, unavailable
from fedapp.server.run import run_federation

Tampered = Message | list[Message] | None


class InProcessGrid(HostedGrid):
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
        super().__init__()
        configs = node_configs or [{"partition-id": i, "num-partitions": num_nodes} for i in range(num_nodes)]
        self._contexts = {100 + i: make_context(100 + i, config, overrides) for i, config in enumerate(configs)}
        self._app, self._tamper, self._delay = app, tamper, delay
        self._order = random.Random(shuffle) if shuffle is not None else None
        self._due: dict[str, float] = {}  # by the id of a message, when its replies are there
        self.sent: list[Message] = []
        self.received: list[Message] = []

    @property
    def contexts(self) -> dict[int, Context]:
        return self._contexts

    def _deliver(self, number: str, message: Message) -> None:
        self.sent.append(message)
        replies = self._answer(message)
        if replies:
            self._replies[number] = replies
            self._due[number] = time.monotonic() + self._delay(replies[0])

    def _answer(self, message: Message) -> list[Message]:
        node = message.metadata.dst_node_id
        if node not in self.contexts:
            return [unavailable(message)]
        try:
            reply = self._app(message, self.contexts[node])
        except Exception as error:  # as the SuperNode does
            reply = Message(Error(2, str(error)), reply_to=message)
        tampered = self._tamper(reply)
        if tampered is None:
            return []
        return tampered if isinstance(tampered, list) else [tampered]

    def wait(self, seconds: float) -> None:
        time.sleep(min(seconds, 0.002))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        now = time.monotonic()
        there = [number for number in message_ids if self._due.get(number, math.inf) <= now]
        ready = list(super().pull_messages(there))
        if self._order is not None:
            self._order.shuffle(ready)
        self.received += ready
        return ready


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
    told = {} if report else {"show": lambda *_: None}
    run_federation(grid, config, directory, time.perf_counter(), overrides.split(), **told)
    return directory
