"""Who is asked and who is left out for a while; SuperNodes that go, come, and come late."""

import json
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from in_process import InProcessGrid, make_context, run_on

from fedapp.server.exchange import Exchange
from fedapp.server.population.attendance import Attendance
from fedapp.server.population.joining import AdmissionRules
from fedapp.server.population.preflight import Population, preflight
from fedapp.server.population.roster import Roster
from fedapp.wire.preflight import PreflightReport
from fedapp.wire.reply import ClientReport

pytestmark = pytest.mark.slow  # whole federations

NODES = {0: 100, 1: 101, 2: 100, 3: 101}
COUNTS = {0: 10, 1: 20, 2: 30, 3: 40}
SMALL = "model=logistic_regression federation.num_clients=6 federation.wait_timeout=0.3 federation.fraction_train=1"


def roster(**options: Any) -> Roster:
    return Roster(Population(NODES, COUNTS), **options)


def reports(failed: Iterable[int], asked: Iterable[int] = NODES) -> dict[int, ClientReport]:
    return {client: ClientReport(client, rejected="bad" if client in failed else None) for client in asked}


def test_only_those_who_are_there_are_asked() -> None:
    clients = roster()
    assert clients.available(1, 1) == [0, 1, 2, 3]
    clients.present = {101}
    assert clients.available(1, 1) == clients.reachable() == [1, 3]


def test_the_busy_are_asked_only_where_there_are_too_few_others() -> None:
    clients = roster()
    clients.busy = {100}
    assert clients.available(1, 2) == [1, 3]
    assert clients.available(1, 3) == [0, 1, 3]


def test_exclusion_after_failures_in_a_row_and_probation() -> None:
    clients = roster(exclude_after=2, exclude_rounds=3)
    assert clients.note(1, reports([0])) == {}
    assert clients.note(2, reports([1])) == {}  # 0 did well: its count is cleared
    assert clients.note(3, reports([0, 1])) == {1: 6}
    assert clients.available(4, 1) == clients.available(6, 1) == [0, 2, 3]
    assert clients.left_out(6) == [1]
    assert clients.available(7, 1) == [0, 1, 2, 3]
    assert clients.note(7, reports([1])) == {1: 10}


def test_nobody_is_excluded_where_that_is_switched_off() -> None:
    clients = roster(exclude_after=None)
    for server_round in range(1, 20):
        clients.note(server_round, reports([0]))
    assert clients.left_out(20) == []


def test_the_excluded_come_back_early_where_a_round_could_not_be_held() -> None:
    clients = roster(exclude_after=1, exclude_rounds=5)
    clients.note(1, reports([2]))
    clients.note(2, reports([0, 1]))
    assert clients.available(3, 1) == [3]
    assert clients.available(3, 2) == [2, 3]
    assert clients.available(3, 3) == [0, 2, 3]


def test_state_goes_through_json() -> None:
    clients, other = roster(exclude_after=1, exclude_rounds=5), roster(exclude_after=1, exclude_rounds=5)
    clients.note(1, reports([2]))
    other.load_state_dict(json.loads(json.dumps(clients.state_dict())))
    assert other.left_out(6) == clients.left_out(6) == [2]
    assert other.state_dict() == clients.state_dict()


def preflight_report(**options: Any) -> PreflightReport:
    return PreflightReport("code", "path", **({"clients": (7,), "num_examples": (5,), "faults": ("",)} | options))


def test_a_supernode_that_joins_brings_its_clients() -> None:
    clients = roster()
    assert clients.admit(105, preflight_report()) == []
    assert clients.nodes[7] == 105
    assert clients.num_examples[7] == 5
    assert clients.admit(106, preflight_report(faults=("no column 'ill'",), clients=(8,))) == [
        "client 8: no column 'ill'"
    ]
    assert 8 not in clients.nodes


def test_a_client_moves_only_when_its_old_supernode_has_gone() -> None:
    clients = roster()
    clients.present = {100, 101, 105}
    assert "lives on SuperNode 101 already" in clients.admit(105, preflight_report(clients=(1,)))[0]
    assert clients.nodes[1] == 101
    clients.present = {100, 105}
    assert clients.admit(105, preflight_report(clients=(1,))) == []
    assert clients.nodes[1] == 105


def test_a_supernode_that_is_alone_is_never_a_second_client() -> None:
    """Two claims in one report, or the number of a client that has gone."""
    clients = Roster(Population({0: 100, 1: 101}, {0: 10, 1: 20}), alone=True)
    clients.present = {100, 105}
    assert clients.admit(100, preflight_report(clients=(1,))) == [
        "client 1 of SuperNode 100: it is another client already, and may be one only"
    ]
    assert clients.nodes == {0: 100, 1: 101}
    assert clients.admit(100, preflight_report(clients=(0,))) == []
    assert clients.admit(105, preflight_report(clients=(1,))) == []
    both = preflight_report(clients=(7, 8), num_examples=(5, 5), faults=("", ""))
    assert len(clients.admit(106, both)) == 1
    assert clients.nodes == {0: 100, 1: 105, 7: 106}


# --- attendance, on a grid ---------------------------------------------------------------------------------------


def attend(grid: InProcessGrid, min_clients: int = 1, wait_timeout: float = 0.3) -> tuple[Attendance, Roster]:
    exchange, rules = Exchange(grid), AdmissionRules(num_clients=6, wait_timeout=1, reply_timeout=5)
    population = preflight(exchange, rules)
    clients = Roster(population)
    rules = replace(rules, min_clients=min_clients, wait_timeout=wait_timeout)
    return Attendance(exchange, clients, population, rules), clients


def node_configs(count: int, of: int) -> list[dict[str, Any]]:
    return [{"partition-id": i, "num-partitions": of} for i in range(count)]


def test_supernodes_that_vanish_join_and_return() -> None:
    grid = InProcessGrid(SMALL, node_configs=[*node_configs(2, 2)])
    attendance, clients = attend(grid)
    gone = grid.contexts.pop(101)
    attendance.update()
    assert clients.reachable() == [0, 2, 4]
    grid.contexts[107] = make_context(107, gone.node_config, SMALL)  # restarted under another id
    attendance.update()  # asks
    attendance.update()  # has the answer
    assert clients.reachable() == [0, 1, 2, 3, 4, 5]
    assert clients.nodes[1] == 107
    grid.contexts[101] = gone
    attendance.update()
    attendance.update()
    assert clients.nodes[1] == 107
    assert "lives on SuperNode 107 already" in clients.faults["client 1 of SuperNode 101"]


def test_too_few_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = InProcessGrid(SMALL, 2)
    attendance, clients = attend(grid, min_clients=4, wait_timeout=600)
    gone, looks, look = grid.contexts.pop(101), list[int](), grid.get_node_ids

    def returns_at_the_third_look() -> Iterable[int]:
        looks.append(len(grid.contexts))
        if len(looks) == 3:
            grid.contexts[101] = gone
        return look()

    monkeypatch.setattr(grid, "get_node_ids", returns_at_the_third_look)
    attendance.update()
    assert looks[:3] == [1, 1, 1]
    assert len(clients.reachable()) == 6


def test_waiting_comes_to_an_end() -> None:
    grid = InProcessGrid(SMALL, 2)
    attendance, clients = attend(grid, min_clients=4, wait_timeout=0.1)
    grid.contexts.pop(101)
    attendance.update()
    assert len(clients.reachable()) == 3


def test_a_newcomer_with_other_code_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = InProcessGrid(SMALL, node_configs=node_configs(2, 3))
    attendance, clients = attend(grid)
    monkeypatch.setattr("fedapp.client.site_preflight.code_digest", lambda: "another")
    grid.contexts[105] = make_context(105, {"partition-id": 2, "num-partitions": 3}, SMALL)
    attendance.update()
    attendance.update()
    assert 105 not in clients.nodes.values()
    assert any("runs other code" in why for why in clients.faults.values())


@pytest.mark.parametrize("garbage", [b"", b"PK\x03\x04junk", b"not an array"])
def test_a_newcomer_that_sends_garbage_is_left_out(garbage: bytes) -> None:
    def garble(reply: Message) -> Message:
        if reply.metadata.src_node_id == 105:
            reply.content["arrays"] = ArrayRecord({"count": Array(np.zeros(3))})
            reply.content["arrays"]["count"].data = garbage
        return reply

    grid = InProcessGrid(SMALL, node_configs=node_configs(2, 3), tamper=garble)
    attendance, clients = attend(grid)
    grid.contexts[105] = make_context(105, {"partition-id": 2, "num-partitions": 3}, SMALL)
    attendance.update()
    attendance.update()
    assert clients.reachable() == [0, 1, 3, 4]
    assert "SuperNode 105" in clients.faults


def test_a_supernode_that_restarts_before_the_old_one_is_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    grid = InProcessGrid(SMALL, 2)
    attendance, clients = attend(grid)
    grid.contexts[107] = make_context(107, grid.contexts[101].node_config, SMALL)
    for _ in range(4):
        attendance.update()
    assert clients.nodes[1] == 101
    assert caplog.text.count("client 1 of SuperNode 107 takes no part") == 1
    del grid.contexts[101]  # now the SuperLink has noticed
    attendance.update()
    attendance.update()
    assert clients.nodes[1] == 107
    assert clients.reachable() == [0, 1, 2, 3, 4, 5]


def test_a_run_goes_on_while_supernodes_go_and_come(tmp_path: Path) -> None:
    class Restless(InProcessGrid):
        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            messages = list(messages)
            server_round = messages[0].metadata.group_id if messages else ""
            if server_round == "2":
                self.kept = self.contexts.pop(101, None)
            if server_round == "4" and self.kept is not None:
                self.contexts[101] = self.kept
            return super().push_messages(messages)

    overrides = f"{SMALL} federation.num_rounds=6"
    directory = run_on(Restless(overrides, 2), tmp_path / "run", overrides)
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert [line["cohort"] for line in lines[1:]] == [6, 6, 3, 3, 6, 6]
    assert [line["replied"] for line in lines[1:]] == [6, 3, 3, 3, 6, 6]
    assert json.loads((directory / "summary.json").read_text())["status"] == "finished"


# --- over-selection ----------------------------------------------------------------------------------------------


class Slow(InProcessGrid):
    """SuperNode 100 is slow: its replies arrive during the next round."""

    pushed = 0

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        self.pushed += 1
        self._due = dict.fromkeys(self._due, 0.0)
        return super().push_messages(messages)


def held(reply: Message) -> float:
    return float("inf") if reply.metadata.src_node_id == 100 and reply.metadata.message_type == "train" else 0.0


def test_with_over_selection_a_round_goes_on_without_the_slow(tmp_path: Path) -> None:
    overrides = (
        "model=logistic_regression federation.num_clients=6 federation.fraction_train=0.5 federation.over_selection=1"
        " federation.num_rounds=3 federation.round_timeout=600"
    )
    directory = run_on(Slow(overrides, 6, delay=held), tmp_path / "run", overrides)
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()][1:]
    assert lines[0]["cohort"] == 6
    assert all(line["replied"] >= 3 for line in lines)
    rows = [json.loads(line) for line in (directory / "clients.jsonl").read_text().splitlines()]
    slow = [row for row in rows if row["client"] == 0 and row["round"] == 1]
    assert slow[0]["unused"] == "surplus: the round had its replies"
    assert slow[0]["rejected"] is None
    assert not [row for row in rows if row["client"] == 0 and row["round"] == 2 and "phase" not in row]  # busy
    assert not [row for row in rows if row["rejected"]]  # what nobody waited for is not late
    model, received = lines[0]["bytes_down"] // 6, [line["bytes_up"] for line in lines]
    assert max(received) > 3 * model  # the surplus updates came in then, and are counted as traffic


def test_without_over_selection_nobody_is_surplus(tmp_path: Path) -> None:
    overrides = "model=logistic_regression federation.num_clients=6 federation.num_rounds=2"
    directory = run_on(InProcessGrid(overrides, 6), tmp_path / "run", overrides)
    summary = json.loads((directory / "summary.json").read_text())
    assert (summary["unused"], summary["rejected"], summary["excluded"]) == (0, 0, 0)


# --- exchange ----------------------------------------------------------------------------------------------------


def message(node: int, ttl: float = 60.0, kind: str = "query") -> Message:
    return Message(RecordDict(), node, kind, ttl=ttl, group_id="1")


def test_the_superlinks_errors_are_put_down_to_the_supernode_asked() -> None:
    grid = InProcessGrid(SMALL, 2)
    (reply,) = Exchange(grid)([message(109)], 5)
    assert reply.has_error()
    assert (reply.metadata.src_node_id, reply.metadata.group_id) == (109, "1")


def test_what_cannot_be_sent_is_answered_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = InProcessGrid(SMALL, 2)
    monkeypatch.setattr(grid, "push_messages", lambda messages: [])
    replies = list(Exchange(grid)([message(100), message(101)], 5))
    assert [reply.metadata.src_node_id for reply in replies] == [100, 101]
    assert all("did not take the message" in reply.error.reason for reply in replies)


def test_who_owes_a_reply_is_busy_until_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    owed = float("inf")
    grid = InProcessGrid(SMALL, 3, delay=lambda reply: 0.0 if reply.metadata.src_node_id == 101 else owed)
    exchange = Exchange(grid)
    asked = [message(100, 3600, "train"), message(101, 3600, "train"), message(102, 3600, "query")]
    replies = list(exchange(asked, 0.1))
    assert [reply.metadata.src_node_id for reply in replies] == [101]
    assert exchange.busy() == {100}
    later = time.monotonic() + 3601
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert exchange.busy() == set()


def test_large_replies_are_not_all_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = InProcessGrid(SMALL, 6)
    monkeypatch.setattr("fedapp.server.exchange.LARGEST_PULL", 2)
    monkeypatch.setattr("fedapp.server.exchange.bytes_if_whole", lambda content: 1)
    sizes: list[int] = []
    pull = grid.pull_messages

    def noting(ids: Iterable[str]) -> Iterable[Message]:
        sizes.append(len(list(ids)))
        return pull(ids)

    monkeypatch.setattr(grid, "pull_messages", noting)
    assert len(list(Exchange(grid)([message(100 + i) for i in range(6)], 5))) == 6
    assert max(sizes) == 1
