"""Whole runs whose messages bring the difference to the last model that a SuperNode has: the same models for all, in
any grouping, resumed, with lost storage and hostile servers; bytes are those of messages."""

import math
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Error, Message, RecordDict
from in_process import InProcessGrid, run_in_process, run_on
from secure_runs import SMALL, lines, rows, summary

from fedapp.client.handlers import handle
from fedapp.common.errors import ConfigError
from fedapp.config import compose
from fedapp.flower.serde import to_bytes
from fedapp.server.check_config import check_config
from fedapp.server.repeated import RepeatedRound
from fedapp.wire.differences import lacks_base
from fedapp.wire.model import GlobalModel
from fedapp.wire.records import arrays_to_state, content_bytes, state_to_arrays

BASE = SMALL.replace("secaggplus", "none").replace("num_rounds=2", "num_rounds=4")
DOWN = f"{BASE} downlink=differences federation.final_evaluation=false"
HALF = DOWN.replace("fraction_train=1", "fraction_train=0.5").replace("num_rounds=4", "num_rounds=6")
DIFFERENCES, DOWNLINK = "differences", "downlink"


def sha256(directory: Path) -> str:
    return str(summary(directory)["model_sha256"])


def chain(message: Message) -> int | None:
    """How many differences a message brings; None for a whole model."""
    found = message.content.array_records.get(DIFFERENCES)
    return None if found is None else len(found)


def training(grid: InProcessGrid, server_round: int | None = None) -> list[Message]:
    group = None if server_round is None else str(server_round)
    asked = [message for message in grid.sent if message.metadata.message_type == "train"]
    return [message for message in asked if group in (None, message.metadata.group_id)]


# --- bytes --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    ["", "downlink.bits=4", "compression=quantise", "compression=drive", "compression=top_k", "strategy=fedadam"],
)
def test_bytes_down_are_those_on_the_wire(more: str, tmp_path: Path) -> None:
    """Beside each codec, and alone."""
    grid = InProcessGrid(f"{DOWN} {more}", 6)
    directory = run_on(grid, tmp_path / "run", f"{DOWN} {more}")
    told = {line["round"]: line["bytes_down"] for line in lines(directory, "metrics.jsonl") if line["round"]}
    for server_round, counted in told.items():
        sent = training(grid, server_round)
        transported = sum(len(to_bytes(message.content)) for message in sent)
        assert len(sent) == 6
        assert counted == sum(content_bytes(message.content) for message in sent)
        assert counted < transported < counted + 6 * 1500
        assert [chain(message) for message in sent] == [None if server_round == 1 else 1] * 6
    values, blocks, marks = 650, 3 + 1, 2  # weight and bias; mean and deviation of the input do not change
    length = marks + 4 * blocks + values / (2 if "bits=4" in more else 1)
    assert told[2] / 6 == pytest.approx(length, abs=9)  # packed in eights; and with some codecs a number in the plan
    assert told[1] > 2.9 * told[2]
    assert rows(directory, 4).keys() == set(range(6))
    assert summary(directory)["test_accuracy"] > 0.5 or more == "compression=top_k"


# --- the same model for all ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("nodes", "shuffle"), [(2, None), (6, 7)])
def test_the_same_model_for_any_number_of_supernodes_and_any_order(
    nodes: int, shuffle: int | None, tmp_path: Path
) -> None:
    one = run_in_process(tmp_path / "one", HALF, 1)
    other = run_in_process(tmp_path / "other", HALF, nodes, shuffle=shuffle)
    assert sha256(other) == sha256(one)
    judged = [[line["test_loss"] for line in lines(run, "metrics.jsonl")] for run in (one, other)]
    assert judged[0] == judged[1]


@pytest.mark.slow
def test_masked_sums_of_the_same_levels_give_the_same_model(tmp_path: Path) -> None:
    codec = " compression=quantise"
    plain = run_in_process(tmp_path / "plain", DOWN + codec, 3)
    grid = InProcessGrid(DOWN.replace("=none", "=secaggplus") + codec, 3)
    secret = run_on(grid, tmp_path / "secret", DOWN.replace("=none", "=secaggplus") + codec)
    assert sha256(secret) == sha256(plain)
    assert sum(chain(message) == 1 for message in training(grid)) == 9


@pytest.mark.slow
def test_who_was_away_gets_the_chain_of_differences_or_the_whole_whichever_is_less(tmp_path: Path) -> None:
    grid = InProcessGrid(HALF, 6)
    run_on(grid, tmp_path / "run", HALF)
    last: dict[int, int] = {}
    chains = set[int]()
    for message in training(grid):
        node, this = message.metadata.dst_node_id, int(message.metadata.group_id)
        away = this - last.get(node, -99)
        found = chain(message)
        # A model of 2,600 bytes, and some 680 for each round: three of them are less.
        assert found == (away if away <= 3 else None)
        chains |= {found} if found is not None else set()
        last[node] = this
    assert {1, 2} <= chains
    whole = run_in_process(tmp_path / "one", HALF, 1)
    assert sha256(tmp_path / "run") == sha256(whole)


@pytest.mark.slow
def test_a_model_that_a_supernode_has_is_not_sent_again(tmp_path: Path) -> None:
    """Candidates judge the model that the chosen ones then train."""
    overrides = f"{DOWN} cohort=power_of_choice federation.fraction_train=0.5"
    grid = InProcessGrid(overrides, 6)
    run_on(grid, tmp_path / "run", overrides)
    assert {chain(message) for message in training(grid)} == {0}


@pytest.mark.slow
@pytest.mark.parametrize("more", ["federation.personal=head", "federation.result=best", "federation.personal=ditto"])
def test_heads_and_the_best_model_work(more: str, tmp_path: Path) -> None:
    overrides = f"{DOWN} {more}".replace("final_evaluation=false", "final_evaluation=true").replace(
        "model=logistic_regression", "model=mlp"
    )
    one, other = (run_in_process(tmp_path / str(nodes), overrides, nodes) for nodes in (1, 3))
    assert summary(one)["final_val_accuracy"] == pytest.approx(summary(other)["final_val_accuracy"])
    assert sha256(one) == sha256(other)
    assert not [row for row in lines(other, "clients.jsonl") if row.get("rejected")]


# --- resumed, and lost --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [2, 3])
def test_a_resumed_run_ends_with_the_same_model(nodes: int, tmp_path: Path) -> None:
    """With models of a later round than that from which it goes on, and in other SuperNodes."""
    overrides = f"{DOWN} compression=top_k"
    whole = run_in_process(tmp_path / "whole", f"{overrides} run.output_dir={tmp_path / 'whole'}", 2)
    place = tmp_path / "parts"
    run_in_process(place, f"{overrides.replace('num_rounds=4', 'num_rounds=3')} run.output_dir={place}", 2)
    middle = place / "checkpoint" / "round-00002.safetensors"
    again = run_in_process(place, f"{overrides} run.output_dir={place} run.resume={middle}", nodes)
    assert sha256(again) == sha256(whole)


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_what_supernodes_have(tmp_path: Path) -> None:
    place = tmp_path / "run"
    given = f"{DOWN} run.output_dir={place}"
    run_in_process(place, given.replace("num_rounds=4", "num_rounds=3"), 2)
    grid = InProcessGrid(f"{given} run.resume={place}", 2)
    run_on(grid, place, f"{given} run.resume={place}")
    assert [chain(message) for message in training(grid)] == [1, 1]
    assert len(list((place / "received" / "supernode-0").iterdir())) == 2


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["none", "secaggplus"])
def test_who_has_lost_its_storage_gets_the_whole_in_the_same_round(protocol: str, tmp_path: Path) -> None:
    overrides = DOWN.replace("secure_aggregation=none", f"secure_aggregation={protocol}")
    grid = InProcessGrid(overrides, 3)
    app = grid._app

    def answer(message: Message, context: Any) -> Message:
        if message.metadata.dst_node_id == 101 and message.metadata.group_id == "3" and chain(message):
            context.state.pop("received", None)  # and not its keys of this round
        return app(message, context)

    grid._app = answer  # type: ignore[assignment]
    directory = run_on(grid, tmp_path / "run", overrides)
    brought = [m for m in training(grid, 3) if m.content.array_records]
    assert sorted((m.metadata.dst_node_id, chain(m)) for m in brought if chain(m)) == [(100, 1), (101, 1), (102, 1)]
    assert [m.metadata.dst_node_id for m in brought if chain(m) is None] == [101]
    line = lines(directory, "metrics.jsonl")[3]
    assert line["rejected"] == 0
    assert line["bytes_down"] == sum(content_bytes(m.content) for m in training(grid, 3))
    assert sha256(directory) == sha256(run_in_process(tmp_path / "other", overrides, 3))


@pytest.mark.slow
def test_a_lost_reply_costs_no_round_of_its_sender(tmp_path: Path) -> None:
    """The server thinks that it has the model before, and so it does."""

    def tamper(reply: Message) -> Message | None:
        about = reply.metadata
        return None if (about.src_node_id, about.group_id, about.message_type) == (101, "2", "train") else reply

    given = f"{DOWN} federation.round_timeout=2 run.output_dir={tmp_path / 'run'}"
    grid = InProcessGrid(given, 3, tamper=tamper)
    directory = run_on(grid, tmp_path / "run", given)
    bad = [(row["round"], row["client"]) for row in lines(directory, "clients.jsonl") if row.get("rejected")]
    assert bad == [(2, 1), (2, 4)]
    assert [chain(m) for m in training(grid) if m.metadata.dst_node_id == 101][-1] in (1, 2)


# --- who lies -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("claim", [{"has": "0" * 64}, {"has": 7}, {"has": "x"}, {"lacks-base": True}, {}])
def test_what_a_supernode_says_falsely_harms_nobody_else(claim: dict[str, Any], tmp_path: Path) -> None:
    def tamper(reply: Message) -> Message:
        if reply.metadata.src_node_id == 100 and reply.metadata.message_type == "train":
            if "lacks-base" in claim:
                reply.content = RecordDict({DOWNLINK: ConfigRecord(claim)})
            else:
                reply.content[DOWNLINK] = ConfigRecord(claim)
        return reply

    overrides = DOWN.replace("num_rounds=4", "num_rounds=3")
    grid = InProcessGrid(overrides, 3, tamper=tamper)
    directory = run_on(grid, tmp_path / "run", overrides)
    assert summary(directory)["status"] == "finished"
    assert {chain(m) for m in training(grid) if m.metadata.dst_node_id == 100} == {None}
    assert [chain(m) for m in training(grid) if m.metadata.dst_node_id == 101] == [None, 1, 1]
    rejected = {row["client"] for row in lines(directory, "clients.jsonl") if row.get("rejected")}
    assert rejected == ({0, 3} if "lacks-base" in claim else set())


def recorded(tmp_path: Path, overrides: str = DOWN) -> tuple[InProcessGrid, Message]:
    """A run of two rounds, and its last message to train."""
    given = overrides.replace("num_rounds=4", "num_rounds=2")
    grid = InProcessGrid(given, 2)
    run_on(grid, tmp_path / "run", given)
    return grid, training(grid)[-1]


def changed(content: RecordDict, change: str) -> None:
    config, arrays = content.config_records[DOWNLINK], content.array_records[DIFFERENCES]
    packed = arrays_to_state(arrays)["0"].numpy()
    if change == "wrong length":
        content[DIFFERENCES] = state_to_arrays({"0": torch.from_numpy(packed[:-1])})
    elif change == "scale":
        packed[2:6] = np.frombuffer(struct.pack("<f", math.nan), np.uint8)  # behind marks of two exact tensors
        content[DIFFERENCES] = state_to_arrays({"0": torch.from_numpy(packed)})
    elif change == "many":
        content[DIFFERENCES] = state_to_arrays({str(i): torch.from_numpy(packed) for i in range(65)})
    elif change == "no fingerprint":
        config["base"] = "../../etc/passwd"
    elif change == "both":
        content["arrays"] = state_to_arrays({"weight": torch.zeros(10, 64)})
    elif change == "no record":
        del content[DOWNLINK]


REFUSED = {
    "wrong length": "bad message: downlink: bad difference: .* and it takes",
    "scale": "bad message: downlink: bad difference: a scale of nan",
    "many": "expected 0 to 64 differences in order, got 65",
    "no fingerprint": "expected the SHA-256 of a model",
    "both": "a message with a whole model and differences",
    "no record": "bad message",
}


@pytest.mark.parametrize("change", REFUSED)
def test_a_hostile_message_is_refused_by_name(change: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The server learns the kind of error, and the log says why."""
    grid, message = recorded(tmp_path)
    context = grid.contexts[message.metadata.dst_node_id]
    context.state["received"] = state_to_arrays(base_of(grid, message))
    changed(message.content, change)
    with pytest.raises(RuntimeError, match=r"FederationError \(see the client's log\)"):
        handle("train", message.content, context)
    said = "\n".join(str(record.exc_info[1]) for record in caplog.records if record.exc_info)
    assert re.search(REFUSED[change], said), said


def base_of(grid: InProcessGrid, message: Message) -> dict[str, torch.Tensor]:
    """The whole model of round 1, from which the differences of round 2 are."""
    first = next(m for m in training(grid, 1) if m.metadata.dst_node_id == message.metadata.dst_node_id)
    return arrays_to_state(first.content.array_records["arrays"])


def test_an_unknown_base_asks_for_the_whole_and_trains_nothing(tmp_path: Path) -> None:
    grid, message = recorded(tmp_path)
    context = grid.contexts[message.metadata.dst_node_id]
    message.content.config_records[DOWNLINK]["base"] = "f" * 64
    reply = handle("train", message.content, context)
    assert lacks_base(reply)
    assert list(reply) == [DOWNLINK]


@pytest.mark.parametrize("change", ["level", "fingerprint"])
def test_differences_to_another_model_ask_for_the_whole_and_train_nothing(
    change: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As from a server that computes otherwise: the run would end without those clients."""
    grid, message = recorded(tmp_path)
    context = grid.contexts[message.metadata.dst_node_id]
    context.state["received"] = state_to_arrays(base_of(grid, message))
    packed = arrays_to_state(message.content.array_records[DIFFERENCES])["0"]
    if change == "level":
        packed[-3] ^= 1
        message.content[DIFFERENCES] = state_to_arrays({"0": packed})
    else:
        message.content.config_records[DOWNLINK]["model"] = "f" * 64
    reply = handle("train", message.content, context)
    assert lacks_base(reply)
    assert "differences do not lead to the model" in caplog.text


@pytest.mark.slow
def test_differences_that_do_not_lead_to_the_model_cost_nobody_the_round(tmp_path: Path) -> None:
    grid = InProcessGrid(DOWN, 3)
    app = grid._app

    def answer(message: Message, context: Any) -> Message:
        if message.metadata.dst_node_id == 101 and chain(message):
            message.content.config_records[DOWNLINK]["model"] = "f" * 64
        return app(message, context)

    grid._app = answer  # type: ignore[assignment]
    directory = run_on(grid, tmp_path / "run", DOWN)
    assert not [row for row in lines(directory, "clients.jsonl") if row.get("rejected")]
    assert sha256(directory) == sha256(run_in_process(tmp_path / "other", DOWN, 3))


@pytest.mark.slow
def test_after_an_error_the_next_message_brings_the_whole(tmp_path: Path) -> None:
    grid = InProcessGrid(DOWN, 3)
    app = grid._app

    def answer(message: Message, context: Any) -> Message:
        about = message.metadata
        if (about.dst_node_id, about.group_id, about.message_type) == (101, "2", "train"):
            return Message(Error(2, "no memory"), reply_to=message)
        return app(message, context)

    grid._app = answer  # type: ignore[assignment]
    directory = run_on(grid, tmp_path / "run", DOWN)
    assert [chain(m) for m in training(grid) if m.metadata.dst_node_id == 101] == [None, 1, None, 1]
    assert [chain(m) for m in training(grid) if m.metadata.dst_node_id == 100] == [None, 1, 1, 1]
    assert [row["round"] for row in lines(directory, "clients.jsonl") if row.get("rejected")] == [2, 2]


@pytest.mark.slow
@pytest.mark.parametrize("beside", ["record", "entry"])
def test_who_lacks_a_model_says_nothing_else(beside: str, tmp_path: Path) -> None:
    """Those bytes would be in no count; and the update is of nobody knows which model."""

    def tamper(reply: Message) -> Message:
        about = reply.metadata
        if (about.src_node_id, about.group_id, about.message_type) == (101, "2", "train"):
            if beside == "record":
                reply.content[DOWNLINK] = ConfigRecord({"lacks-base": True})
            else:
                reply.content = RecordDict({DOWNLINK: ConfigRecord({"lacks-base": True, "more": b"0" * 999})})
        return reply

    grid = InProcessGrid(DOWN, 3, tamper=tamper)
    directory = run_on(grid, tmp_path / "run", DOWN)
    rejected = [(row["round"], row["rejected"]) for row in lines(directory, "clients.jsonl") if row.get("rejected")]
    assert [server_round for server_round, _ in rejected] == [2, 2]
    assert all("it says that it lacks a model" in why for _, why in rejected)
    assert [chain(m) for m in training(grid) if m.metadata.dst_node_id == 101] == [None, 1, None, 1]


@pytest.mark.slow
def test_a_round_has_changed_nothing_where_the_model_goes_on_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked again after a round that revealed shares is judged by the model with which the run goes on."""
    judged = list[tuple[str, str | None]]()

    def note(self: RepeatedRound, cohort: Any, model: GlobalModel, changed: GlobalModel | None, aggregate: Any) -> None:
        judged.append((model.sha256, changed.sha256 if changed is not None else None))

    monkeypatch.setattr(RepeatedRound, "note", note)
    directory = run_in_process(tmp_path / "run", DOWN, 2)
    assert [after for _, after in judged[:-1]] == [before for before, _ in judged[1:]]
    assert judged[-1][1] == sha256(directory)


def test_differences_in_a_run_of_whole_models_are_refused(tmp_path: Path) -> None:
    grid, message = recorded(tmp_path)
    context = grid.contexts[message.metadata.dst_node_id]
    context.run_config["overrides"] = str(context.run_config["overrides"]).replace("downlink=differences", "")
    with pytest.raises(RuntimeError, match="ValueError"):
        handle("train", message.content, context)


# --- what goes together -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (
            "privacy=client_dp privacy.noise_multiplier=1 federation.num_clients=30 model=logistic_regression"
            " train.val_fraction=0 federation.final_evaluation=false federation.min_clients=1"
            " federation.exclude_after=null",
            "downlink=differences: .*tell who was asked, which privacy=client_dp keeps secret",
        ),
        (
            "secure_aggregation=helper secure_aggregation.sum_to=clients federation.deliver=true"
            " federation.final_evaluation=false",
            "downlink=differences: needs the model at the server",
        ),
        ("rounds=buffered", "downlink=differences: is for rounds that wait for their cohort"),
        ("federation.client_speed=lognormal", "downlink=differences: is for rounds that wait for their cohort"),
        ("downlink.bits=2", "must be one of 8, 4"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(overrides: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        check_config(compose(["downlink=differences", *overrides.split()]))
