"""Every fault at once, in one run: the run ends well, and the good clients' average is what it would have been."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import SPOILERS, faulty
from flwr.app import Context, Message
from in_process import InProcessGrid, run_on
from safetensors.torch import load_file

from fedapp.client_app import app

pytestmark = pytest.mark.slow  # whole federations

# Each client is a SuperNode: number 0 to 3 do as they should, and so do two whose fault must change nothing.
REASONS = {
    "exception": "bad reply: error 2: out of memory",
    "NaN": "non-finite value in net.1.weight",
    "infinity": "non-finite value in net.1.weight",
    "wrong shape": "wrong shape: net.1.weight is (1, 10, 64), the model has (10, 64)",
    "wrong dtype": "wrong dtype: net.1.weight is torch.float64, the model has torch.float32",
    "missing key": "wrong keys: missing ['net.1.weight']",
    "huge norm": "above 20",
    "replies too late": "no reply in time",
    "vanishes": "bad reply: error 3: Node Unavailable",
}
HARMLESS = ("claims 10^12 examples", "replies twice")
NAMES = [*(None,) * 4, *HARMLESS, *REASONS]
ROUNDS = 4
BASE = (
    f"federation.num_clients={len(NAMES)} federation.num_rounds={ROUNDS} federation.fraction_train=1 partition=iid"
    " model=logistic_regression strategy.max_update_norm=20 federation.round_timeout=2 federation.wait_timeout=0.1"
    " federation.exclude_after=2 federation.exclude_rounds=1"
)


def fault_of(context: Context) -> str | None:
    return NAMES[int(context.node_config["partition-id"])]


def name_of(message: Message) -> str | None:
    return dict(enumerate(NAMES, start=100)).get(message.metadata.src_node_id)


class FaultyGrid(InProcessGrid):
    """Takes one SuperNode away while round 2 is under way, and lets late replies arrive during the next round."""

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        self._due = dict.fromkeys(self._due, 0.0)
        return super().push_messages(messages)

    def _answer(self, message: Message) -> list[Message]:
        if message.metadata.group_id == "2" and message.metadata.message_type == "train":
            self.contexts.pop(100 + NAMES.index("vanishes"), None)
        return super()._answer(message)


def twice(reply: Message) -> Message | list[Message]:
    return [reply, reply] if name_of(reply) == "replies twice" and reply.metadata.message_type == "train" else reply


def late(reply: Message) -> float:
    return math.inf if name_of(reply) == "replies too late" and reply.metadata.message_type == "train" else 0.0


def rows(directory: Path, name: str = "clients.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / name).read_text().splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    grid = FaultyGrid(BASE, len(NAMES), app=faulty(app, fault_of), tamper=twice, delay=late)
    return run_on(grid, tmp_path_factory.mktemp("faults") / "run", BASE, report=True)


def test_the_run_ends_well(run: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["rounds"]) == ("finished", ROUNDS)
    metrics = rows(run, "metrics.jsonl")
    assert metrics[-1]["test_loss"] < metrics[0]["test_loss"]


@pytest.mark.parametrize("fault", REASONS)
def test_the_client_and_the_reason_are_reported(run: Path, fault: str) -> None:
    client = NAMES.index(fault)
    training = [row for row in rows(run) if row["client"] == client and "phase" not in row]
    asked = [row for row in training if fault != "vanishes" or row["round"] == 2]
    assert asked
    assert all(REASONS[fault] in row["rejected"] for row in asked)
    assert REASONS[fault].replace("'", "&#39;") in (run / "report.html").read_text()


def test_nobody_else_is_rejected(run: Path) -> None:
    fine = {client for client, name in enumerate(NAMES) if name is None or name in HARMLESS}
    training = [row for row in rows(run) if row["client"] in fine and "phase" not in row]
    assert len(training) == ROUNDS * len(fine)
    assert not any(row["rejected"] for row in training)


def test_second_and_late_replies_are_dropped_and_named(run: Path) -> None:
    strays = {row["rejected"] for row in rows(run) if row["client"] is None}
    assert f"SuperNode {100 + NAMES.index('replies twice')} answered twice" in strays
    assert f"SuperNode {100 + NAMES.index('replies too late')} replied too late: to round 1" in strays


def test_those_that_keep_failing_are_left_out_for_a_while(run: Path) -> None:
    client = NAMES.index("NaN")
    mine = [row for row in rows(run) if row["client"] == client and "phase" not in row]
    # Twice in a row, then a round without it, then on probation.
    assert [row["round"] for row in mine] == [1, 2, 4]
    assert [row.get("excluded_until") for row in mine] == [None, 3, 5]
    assert "left out until round 3" in (run / "report.html").read_text()


def test_who_has_gone_is_not_asked_again(run: Path) -> None:
    client = NAMES.index("vanishes")
    assert [row["round"] for row in rows(run) if row["client"] == client and "phase" not in row] == [1, 2]


def test_the_good_clients_average_is_what_it_would_have_been(run: Path, tmp_path: Path) -> None:
    """Against the same federation in which nothing of the bad updates ever leaves their clients."""

    def failing(context: Context) -> str | None:
        return "exception" if fault_of(context) in SPOILERS.keys() - {*HARMLESS} else None

    grid = FaultyGrid(BASE, len(NAMES), app=faulty(app, failing), tamper=twice, delay=late)
    quiet = run_on(grid, tmp_path / "quiet", BASE)
    found, expected = load_file(run / "model.safetensors"), load_file(quiet / "model.safetensors")
    assert all(torch.equal(found[key], expected[key]) for key in expected)
