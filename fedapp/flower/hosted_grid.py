"""A Grid whose SuperNodes are processes, or functions, of this program: no SuperLink stands between.

Needs, of flwr 1.41 and 1.42: `Run.create_empty`; `TaskIdentity`, which names the sender of every new message; and that
a message's id is `_message_id` in the dictionary of its metadata.
"""

import itertools
import math
import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

__all__ = ["HostedGrid", "delivered", "simulated_nodes", "unavailable"]

SERVER, FIRST_NODE = 1, 100  # node ids
POLL = 0.002  # seconds


def simulated_nodes(count: int, overrides: str) -> dict[int, Context]:
    """By node id, the context of each of `count` SuperNodes that share the data of a simulation."""
    return {
        FIRST_NODE + number: Context(
            run_id=1,
            node_id=FIRST_NODE + number,
            node_config={"partition-id": number, "num-partitions": count},
            state=RecordDict(),
            run_config={"overrides": overrides},
        )
        for number in range(count)
    }


class HostedGrid(Grid):
    """What is common to such grids: ids, and replies that wait to be pulled.

    `state` is there since Flower's own simulation has one, by which a simulation is told from a deployment.
    """

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._replies: dict[str, list[Message]] = {}  # by the id of the message that they answer
        self.names: dict[int, str] = {}  # under which SuperNodes' keys are registered
        self.state: object = None
        speak_as_server()

    @property
    @abstractmethod
    def contexts(self) -> Mapping[int, Context]:
        """The SuperNodes that are there, by node id."""

    @abstractmethod
    def _deliver(self, number: str, message: Message) -> None:
        """Pass a message on. Its replies are put into `_replies` under `number`, now or later."""

    @abstractmethod
    def wait(self, seconds: float) -> None:
        """Wait until a reply is there that was not there before, `seconds` at most."""

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            number = str(next(self._ids))
            message.metadata.__dict__["_message_id"] = number
            ids.append(number)
            self._deliver(number, message)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [reply for number in sorted(message_ids) for reply in self._replies.pop(number, [])]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        waiting, found = set(self.push_messages(messages)), list[Message]()
        end = time.monotonic() + (math.inf if timeout is None else timeout)
        while waiting and time.monotonic() < end:
            for reply in self.pull_messages(waiting):
                waiting.discard(reply.metadata.reply_to_message_id)
                found.append(reply)
            if waiting:
                self.wait(POLL)
        return found

    def get_node_ids(self) -> Iterable[int]:
        return list(self.contexts)

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [NodeInfo(node_id=node, name=self.names.get(node, "")) for node in self.contexts]

    @property
    def run(self) -> Run:
        return Run.create_empty(1)

    def set_run(self, run: Run) -> None:
        raise NotImplementedError

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError


def speak_as_server() -> None:
    """Messages that this process makes are its run's server's."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, SERVER


def delivered(content: RecordDict, node: int, kind: str) -> Message:
    """The server's message of type `kind`, as SuperNode `node` has it."""
    speak_as_server()
    message = Message(content, node, kind)
    message.metadata.__dict__["_message_id"] = "1"
    return message


def unavailable(message: Message) -> Message:
    """What a SuperLink replies, in its own name, for a SuperNode that is not there."""
    reply = Message(Error(3, "Node Unavailable"), reply_to=message)
    reply.metadata.__dict__["_src_node_id"] = SERVER
    return reply
