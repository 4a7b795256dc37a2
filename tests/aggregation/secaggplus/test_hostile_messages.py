"""Messages that no honest server or client would send, in whole runs: refused by name, and nothing is given away."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from array_values import values_of
from flwr.app import Array, ArrayRecord, Message, RecordDict
from in_process import InProcessGrid, run_in_process, run_on
from secure_runs import QUICK, SMALL, lines, rows, stage, summary

from fedapp.aggregation.secaggplus.messages import unpack_answers
from fedapp.client_app import app as client_app
from fedapp.wire.instruction import stage_of, with_stage
from fedapp.wire.records import arrays_to_state, state_to_arrays

# --- a hostile server ---------------------------------------------------------------------------------------------


def played(overrides: str = SMALL, nodes: int = 6, **grid: Any) -> InProcessGrid:
    return InProcessGrid(overrides, nodes, **grid)


def asked(grid: InProcessGrid, wanted: str, node: int = 100, server_round: str = "1") -> Message:
    """The question of the stage `wanted`."""
    (found,) = [
        m
        for m in grid.sent
        if stage(m) == wanted and m.metadata.dst_node_id == node and m.metadata.group_id == server_round
    ]
    assert stage_of(found.content) == wanted
    return found


def why(grid: InProcessGrid, message: Message, node: int = 100) -> str:
    """What a SuperNode answers to a message that it should refuse."""
    reply = client_app(message, grid.contexts[node])
    answers, refused = unpack_answers(reply.content, [node - 100])
    assert not answers
    return refused[node - 100]


def test_messages_of_rounds_that_are_over_are_refused(tmp_path: Path) -> None:
    grid = played()
    run_on(grid, tmp_path / "run", SMALL)
    assert "replayed: round 1 after round 2" in why(grid, asked(grid, "keys"))
    assert "replayed: round 2 after round 2" in why(grid, asked(grid, "keys", server_round="2"))
    assert "wrong stage" in why(grid, asked(grid, "shares", server_round="2"))
    assert "wrong stage" in why(grid, asked(grid, "unmask", server_round="2"))
    reply = client_app(asked(grid, "masked", server_round="2"), grid.contexts[100])
    assert not reply.content.array_records
    assert "wrong stage" in str(reply.content.config_records["config"]["rejected"])


def test_a_question_that_comes_twice_unmasks_nothing(tmp_path: Path) -> None:
    """Asked for its masked vector a second time, for another set of clients, a SuperNode answers neither."""
    grid = played()
    push = grid.push_messages
    again: list[Message] = []

    def twice(messages: Any) -> Any:
        messages = list(messages)
        found = push(messages)
        for message in messages:
            if stage(message) == "masked" and message.metadata.dst_node_id == 100:
                again.append(client_app(message, grid.contexts[100]))
        return found

    grid.push_messages = twice  # type: ignore[method-assign]
    directory = run_on(grid, tmp_path / "run", SMALL)
    assert len(again) == 2
    for reply in again:
        assert not reply.content.array_records
        assert "replayed" in str(reply.content.config_records["config"]["rejected"])
    assert summary(directory)["status"] == "finished"


def other_model(content: RecordDict) -> None:
    arrays = content.array_records["arrays"]
    content["arrays"] = ArrayRecord({name: Array(np.zeros_like(values_of(array))) for name, array in arrays.items()})


def other_entry(name: str, value: object) -> Callable[[RecordDict], None]:
    def change(content: RecordDict) -> None:
        assert content.config_records["config"][name] != value
        content.config_records["config"][name] = value  # type: ignore[assignment]

    return change


OTHER_WORK: dict[str, tuple[Callable[[RecordDict], None], str]] = {
    "model": (other_model, "wrong cohort: the model is another one than the cohort has agreed on"),
    **{
        name: (other_entry(name, value), "wrong cohort: the instruction or the config is another one than the cohort's")
        for name, value in (("lr-factor", 0.0), ("plan", '{"Noise": {"std": 0.0}}'), ("each", True), ("deliver", True))
    },
}


@pytest.mark.parametrize("name", OTHER_WORK)
def test_work_that_the_cohort_has_not_agreed_on_is_not_done(tmp_path: Path, name: str) -> None:
    """A server could read an update out of the sum if it gave everyone else a model, or a learning rate, that learns
    nothing."""
    change, why_not = OTHER_WORK[name]
    grid = played(SMALL + QUICK)
    push = grid.push_messages

    def changed(messages: Any) -> Any:
        messages = list(messages)
        for message in messages:
            if stage(message) == "masked" and message.metadata.dst_node_id == 101:
                change(message.content)
        return push(messages)

    grid.push_messages = changed  # type: ignore[method-assign]
    directory = run_on(grid, tmp_path / "run", SMALL + QUICK)
    for number in (1, 2):
        found = rows(directory, number)
        assert found[1]["rejected"] == why_not
        assert [client for client, row in found.items() if row["rejected"]] == [1]


def test_a_client_that_was_given_another_config_sends_nothing(tmp_path: Path) -> None:
    grid = played(SMALL + QUICK)
    grid.contexts[101].run_config["overrides"] = f"{SMALL}{QUICK} optimizer.lr=0.2"
    found = rows(run_on(grid, tmp_path / "run", SMALL + QUICK), 1)
    assert found[1]["rejected"] == "wrong cohort: the instruction or the config is another one than the cohort's"
    assert [client for client, row in found.items() if row["rejected"]] == [1]


@pytest.mark.slow
def test_a_message_outside_the_protocol_gets_no_update(tmp_path: Path) -> None:
    """The instruction to train in a stage of another protocol, in none, or to evaluate."""
    grid = played()
    run_on(grid, tmp_path / "run", SMALL)
    content = asked(grid, "masked").content
    evaluate = Message(content, 100, "evaluate")
    found = client_app(evaluate, grid.contexts[100]).content
    assert found.metric_records["metrics"]["val-examples"] == [0.0]
    assert not found.array_records
    with pytest.raises(RuntimeError, match=r"^FederationError \(see the client's log\)$"):
        client_app(Message(with_stage(content, "train"), 100, "train"), grid.contexts[100])
    del content["protocol"]
    with pytest.raises(RuntimeError, match=r"^KeyError \(see the client's log\)$"):
        client_app(Message(content, 100, "train"), grid.contexts[100])


@pytest.mark.parametrize("claimed", ["keys", "shares", "unmask"])
def test_a_message_that_names_two_stages_gets_no_update(tmp_path: Path, claimed: str) -> None:
    """The stage by which a message is handled, and the one in the protocol's own header."""
    replies = []
    grid = played(SMALL + QUICK)
    push = grid.push_messages

    def renamed(messages: Any) -> Any:
        messages = list(messages)
        for message in messages:
            if stage(message) == "masked" and message.metadata.dst_node_id == 100:
                message.content.config_records["secure"]["stage"] = claimed
                replies.append(client_app(message, grid.contexts[100]))
        return push(messages)

    grid.push_messages = renamed  # type: ignore[method-assign]
    run_on(grid, tmp_path / "run", SMALL + QUICK)
    assert len(replies) == 2
    for reply in replies:
        assert not reply.content.array_records
        rejected = str(reply.content.config_records["config"]["rejected"])
        assert f"wrong stage: a message of the stage {claimed} in that of masked" in rejected


@pytest.mark.parametrize("wanted", ["keys", "shares", "masked", "unmask"])
def test_a_run_without_secure_aggregation_has_none_of_its_stages(tmp_path: Path, wanted: str) -> None:
    grid = played()
    run_on(grid, tmp_path / "run", SMALL)
    plain = InProcessGrid(SMALL.replace("secaggplus", "none"), 6)
    with pytest.raises(RuntimeError, match=r"^FederationError \(see the client's log\)$"):
        client_app(asked(grid, wanted), plain.contexts[100])
    assert not plain.contexts[100].state


# --- forged replies -----------------------------------------------------------------------------------------------


def change(reply: Message, **entries: object) -> Message:
    header = reply.content.config_records["secure"]
    for name, value in entries.items():
        header[name.replace("_", "-")] = value  # type: ignore[assignment]
    return reply


FORGERIES: dict[str, tuple[str, Callable[[Message], Message | list[Message] | None], str]] = {
    "wrong stage": ("shares", lambda reply: change(reply, stage="keys"), "wrong stage"),
    "wrong round": ("shares", lambda reply: change(reply, server_round=1), "wrong round"),
    "wrong run": ("keys", lambda reply: change(reply, run="ff" * 8), "wrong run"),
    "wrong cohort": ("masked", lambda reply: change(reply, digest=b"\0" * 32), "wrong cohort"),
    "other clients": ("masked", lambda reply: change(reply, clients=[3]), "forged"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_reply_costs_its_sender_and_is_named(tmp_path: Path, name: str) -> None:
    of_stage, forge, word = FORGERIES[name]

    def tamper(reply: Message) -> Any:
        about = reply.metadata
        mine = (about.src_node_id, stage(reply), about.group_id) == (102, of_stage, "2")
        return forge(reply) if mine else reply

    directory = run_in_process(tmp_path / "run", SMALL + QUICK, 6, tamper=tamper)
    second = rows(directory, 2)
    assert word in second[2]["rejected"]
    assert [client for client, row in second.items() if row["rejected"]] == [2]


def test_a_truncated_vector_a_replayed_one_and_a_lie_about_shares(tmp_path: Path) -> None:
    earlier: dict[int, Message] = {}

    def tamper(reply: Message) -> Any:
        about = reply.metadata
        client = about.src_node_id - 100
        if stage(reply) == "masked":
            if about.group_id == "1":
                earlier[client] = reply
            elif client == 0:
                (name,) = reply.content.array_records
                (key, vector), *_ = arrays_to_state(reply.content.array_records[name]).items()
                reply.content[name] = state_to_arrays({key: vector[:-1]})
            elif client == 1:
                reply.content = earlier[1].content
        if stage(reply) == "shares" and client == 2 and about.group_id == "2":
            record = reply.content.config_records["client-2"]
            record["to"] = [record["to"][0]] * len(record["to"])  # type: ignore[arg-type,index]
        return reply

    overrides = SMALL + QUICK + " secure_aggregation.threshold=3"
    directory = run_in_process(tmp_path / "run", overrides, 6, tamper=tamper)
    second = rows(directory, 2)
    assert "truncated" in second[0]["rejected"]
    assert "wrong round" in second[1]["rejected"]
    assert "duplicate share" in second[2]["rejected"]
    assert lines(directory, "metrics.jsonl")[-1]["replied"] == 3
