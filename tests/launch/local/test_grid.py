"""The grid of local workers, with threads in their place: who gets which message, and what becomes of the dead."""

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from fedapp.common.errors import FederationError
from fedapp.flower.hosted_grid import simulated_nodes
from fedapp.launch.local.channel import receive, send, take_record, write_record
from fedapp.launch.local.grid import LocalGrid

Work = Callable[[int, RecordDict], dict[str, Any]]  # (SuperNode, content) -> header of the reply


class Workers:
    """Each does its `work` message by message; one whose `work` raises has died. `done`: (worker, node) in order."""

    def __init__(self, work: Work) -> None:
        self.work, self.started, self.done = work, 0, list[tuple[int, int]]()

    def new(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        threading.Thread(target=self._serve, args=(theirs, self.started), daemon=True).start()
        self.started += 1
        return ours

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection:
            try:
                while True:
                    header, (memory,) = receive(connection)
                    content = take_record(memory)
                    self.done.append((number, header["node"]))
                    reply = self.work(header["node"], content)
                    if "error" in reply:
                        send(connection, reply)
                        continue
                    memory = write_record(content)
                    send(connection, reply, [memory])
                    os.close(memory)
            except (EOFError, OSError, RuntimeError):
                pass


def grid_of(work: Work, *, nodes: int, workers: int) -> tuple[LocalGrid, Workers]:
    made = Workers(work)
    return LocalGrid(simulated_nodes(nodes, ""), workers, made.new), made


def messages(grid: LocalGrid, *, to: list[int] | None = None) -> list[Message]:
    nodes = to or list(grid.contexts)
    return [Message(RecordDict({"about": ConfigRecord({"node": node})}), node, "train") for node in nodes]


def test_every_message_gets_its_reply() -> None:
    grid, _ = grid_of(lambda node, content: {"keeps": False}, nodes=7, workers=3)
    replies = list(grid.send_and_receive(messages(grid), timeout=10))
    assert sorted(reply.metadata.src_node_id for reply in replies) == sorted(grid.contexts)
    assert all(reply.content["about"]["node"] == reply.metadata.src_node_id for reply in replies)  # type: ignore[call-overload]
    grid.close()


def test_a_slow_client_holds_up_nobody_but_itself() -> None:
    hold = threading.Event()

    def work(node: int, content: RecordDict) -> dict[str, Any]:
        if node == 100:
            hold.wait(20)
        return {"keeps": False}

    grid, _ = grid_of(work, nodes=6, workers=2)
    replies = list(grid.send_and_receive(messages(grid), timeout=3))
    hold.set()
    assert sorted(reply.metadata.src_node_id for reply in replies) == [101, 102, 103, 104, 105]
    grid.close()


def test_where_something_is_kept_the_same_worker_does_all_of_it() -> None:
    grid, workers = grid_of(lambda node, content: {"keeps": node < 103}, nodes=6, workers=3)
    for _ in range(5):
        assert len(list(grid.send_and_receive(messages(grid), timeout=10))) == 6
    for node in (100, 101, 102):
        assert len({worker for worker, done in workers.done if done == node}) == 1
    grid.close()


def test_one_message_of_a_supernode_at_a_time_and_in_order() -> None:
    running, most = set[int](), 0

    def work(node: int, content: RecordDict) -> dict[str, Any]:
        nonlocal most
        assert node not in running
        running.add(node)
        most = max(most, len(running))
        time.sleep(0.01)
        running.discard(node)
        return {"keeps": False}

    grid, _ = grid_of(work, nodes=2, workers=2)
    assert len(list(grid.send_and_receive(messages(grid, to=[100, 100, 101, 101, 100]), timeout=10))) == 5
    assert most == 2
    grid.close()


def test_an_error_and_a_death_are_told_and_work_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    def work(node: int, content: RecordDict) -> dict[str, Any]:
        if node == 100:
            return {"error": "ValueError (see the client's log)", "keeps": False}
        if node == 101:
            raise RuntimeError  # its socket closes
        return {"keeps": node == 102}

    grid, workers = grid_of(work, nodes=4, workers=1)
    for round_ in range(2):
        found = {reply.metadata.src_node_id: reply for reply in grid.send_and_receive(messages(grid), timeout=10)}
        assert found[100].error.reason == "ValueError (see the client's log)"
        assert found[101].error.reason == "no reply: the worker process has ended; it was killed, or out of memory"
        assert not found[102].has_error()
        assert not found[103].has_error()
        assert workers.started == 2 + round_
    assert "without what it kept for SuperNodes 102" in caplog.text
    grid.close()


def test_one_that_has_died_idle_costs_nobody_a_round() -> None:
    """Whether the grid notices by the closed socket or when it sends, in the same step as another one's reply."""
    grid, workers = grid_of(lambda node, content: {"keeps": True}, nodes=4, workers=2)
    assert len(list(grid.send_and_receive(messages(grid), timeout=10))) == 4
    for worker in grid._workers:
        worker.connection.shutdown(socket.SHUT_RDWR)  # the other side ends
        replies = list(grid.send_and_receive(messages(grid), timeout=10))
        assert len(replies) == 4
        assert not any(reply.has_error() for reply in replies)
    assert workers.started == 4
    grid.close()


def test_a_worker_replaced_while_others_replies_are_taken_is_not_waited_for() -> None:
    """B ends idle; A's reply makes a message B's, so B is replaced before its own end is looked at."""
    go = threading.Event()

    def work(node: int, content: RecordDict) -> dict[str, Any]:
        if node == 100 and "first" in content:
            go.wait(10)
        return {"keeps": False}

    grid, _ = grid_of(work, nodes=1, workers=2)
    first = Message(RecordDict({"first": ConfigRecord({"x": 1})}), 100, "train")
    second = Message(RecordDict({"second": ConfigRecord({"x": 1})}), 100, "train")
    ids = list(grid.push_messages([first, second]))
    idle = next(worker for worker in grid._workers if worker.asked is None)
    idle.connection.shutdown(socket.SHUT_WR)
    go.set()
    time.sleep(0.2)  # both sockets can be read now
    end, found = time.monotonic() + 5, list[Message]()
    while len(found) < 2 and time.monotonic() < end:
        grid.wait(0.2)
        found += grid.pull_messages(ids)
    assert len(found) == 2
    grid.close()


def test_workers_that_end_one_after_the_other_end_the_run() -> None:
    def work(node: int, content: RecordDict) -> dict[str, Any]:
        raise RuntimeError

    grid, workers = grid_of(work, nodes=6, workers=1)
    with pytest.raises(FederationError, match="4 worker processes in a row have ended"):
        list(grid.send_and_receive(messages(grid), timeout=10))
    assert workers.started == 4
    grid.close()


def test_a_supernode_that_is_not_there() -> None:
    grid, _ = grid_of(lambda node, content: {"keeps": False}, nodes=1, workers=1)
    (reply,) = grid.send_and_receive(messages(grid, to=[7]), timeout=5)
    assert reply.error.reason == "Node Unavailable"
    grid.close()
