"""Whole runs under secure aggregation, in this process: dropouts, refusals, and what else is switched on with it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message
from in_process import InProcessGrid, run_in_process, run_on

from fedapp.aggregation.secaggplus.messages import unpack_answers
from fedapp.client_app import app as client_app
from fedapp.common.errors import ConfigError, FederationError
from fedapp.learning.training import LocalTraining, TrainingResult

SMALL = (
    "federation.num_rounds=2 federation.num_clients=6 federation.fraction_train=1 model=logistic_regression"
    " partition=iid secure_aggregation=secaggplus"
)
QUICK = (
    " secure_aggregation.keys_timeout=0.1 secure_aggregation.shares_timeout=0.1 secure_aggregation.masked_timeout=0.1"
    " secure_aggregation.unmask_timeout=0.1 federation.exclude_after=null"
)


def summary(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "summary.json").read_text()))


def lines(directory: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / name).read_text().splitlines()]


def rows(directory: Path, server_round: int) -> dict[int, dict[str, Any]]:
    return {row["client"]: row for row in lines(directory, "clients.jsonl") if row["round"] == server_round}


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_in_process(tmp_path_factory.mktemp("secure") / "run", SMALL, report=True)


def test_it_trains_what_plain_averaging_trains(secure: Path, tmp_path: Path) -> None:
    plain = run_in_process(tmp_path / "run", SMALL.replace("secaggplus", "none") + " federation.final_evaluation=false")
    ours, theirs = lines(secure, "metrics.jsonl")[-1], lines(plain, "metrics.jsonl")[-1]
    for name in ("test_loss", "train_loss"):
        assert ours[name] == pytest.approx(theirs[name], abs=1e-4)
    assert summary(secure)["model_sha256"] != summary(plain)["model_sha256"]  # it was quantised
    assert ours["val_accuracy"] == pytest.approx(theirs["val_accuracy"], abs=0.02)  # weighted as updates are
    assert ours["val_accuracy_worst_decile"] is None
    assert ours["clipped"] == 0.0
    assert summary(secure)["status"] == "finished"


def test_no_line_tells_of_a_single_client_s_training(secure: Path) -> None:
    for row in lines(secure, "clients.jsonl"):
        assert row["rejected"] is None
        assert (row["train_loss"], row["val_loss"], row["val_accuracy"], row["seconds"]) == (None,) * 4
        assert (row["steps"], row["val_examples"]) == (0, 0)
    assert (secure / "report.html").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize(("nodes", "shuffle"), [(1, None), (6, 7)])
def test_the_same_model_for_any_number_of_supernodes_and_any_order(
    secure: Path, tmp_path: Path, nodes: int, shuffle: int | None
) -> None:
    """Keys and masks are never the same twice; what is opened is."""
    other = run_in_process(tmp_path / "run", SMALL, nodes, shuffle=shuffle)
    assert summary(other)["model_sha256"] == summary(secure)["model_sha256"]


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_model(secure: Path, tmp_path: Path) -> None:
    first = SMALL.replace("num_rounds=2", "num_rounds=1")
    run_in_process(tmp_path / "run", f"{first} run.output_dir={tmp_path / 'run'}")
    overrides = f"{SMALL} run.output_dir={tmp_path / 'run'} run.resume=auto secure_aggregation.keys_timeout=50"
    again = run_in_process(tmp_path / "run", overrides)
    assert summary(again)["model_sha256"] == summary(secure)["model_sha256"]


def test_supernodes_keep_no_secret_when_a_round_is_over(tmp_path: Path) -> None:
    grid = InProcessGrid(SMALL, 3)
    run_on(grid, tmp_path / "run", SMALL)
    for context in grid.contexts.values():
        assert list(context.state) == ["secure-round"]


@pytest.mark.slow
def test_what_the_server_gets_is_bytes_that_no_two_runs_have_in_common(tmp_path: Path) -> None:
    seen = []
    for number in range(2):
        grid = InProcessGrid(SMALL, 6)
        run_on(grid, tmp_path / str(number), SMALL)
        replies = [m for m in grid.received if m.metadata.message_type == "train.masked"]
        assert len(replies) == 12
        seen.append(
            {array.data for m in replies for record in m.content.array_records.values() for array in record.values()}
        )
        assert {m.metadata.message_type for m in grid.sent} == {
            "query",
            *(f"train.{stage}" for stage in ("keys", "shares", "masked", "unmask")),
        }
    assert len(seen[0]) == len(seen[1]) == 12
    assert not seen[0] & seen[1]


# --- dropouts -----------------------------------------------------------------------------------------------------


def without(*gone: tuple[int, str], from_round: int = 2) -> Callable[[Message], Message | None]:
    """Withholds replies: of SuperNode 100 + client to a stage, and to all that come after it in that round."""
    stages = ("train.keys", "train.shares", "train.masked", "train.unmask")

    def tamper(reply: Message) -> Message | None:
        about = reply.metadata
        for client, stage in gone:
            if about.src_node_id == 100 + client and about.message_type in stages[stages.index(f"train.{stage}") :]:
                return None if about.group_id == str(from_round) else reply
        return reply

    return tamper


@pytest.mark.parametrize("stage", ["keys", "shares", "masked", "unmask"])
def test_a_client_that_drops_out_at_a_stage_costs_its_own_update(tmp_path: Path, stage: str) -> None:
    directory = run_in_process(tmp_path / "run", SMALL + QUICK, 6, tamper=without((2, stage)))
    second = rows(directory, 2)
    if stage == "unmask":  # its vector is in the sum already
        assert all(row["rejected"] is None for row in second.values())
    else:
        assert second[2]["rejected"] == f"no reply in time ({stage})"
        assert [client for client, row in second.items() if row["rejected"]] == [2]
    assert lines(directory, "metrics.jsonl")[-1]["replied"] == (6 if stage == "unmask" else 5)
    assert summary(directory)["status"] == "finished"


@pytest.mark.slow
def test_what_remains_is_the_average_over_those_who_remain(tmp_path: Path) -> None:
    """The same model as from a client that was never there: the sum of the others, by their own weights."""
    only = SMALL.replace("num_rounds=2", "num_rounds=1") + QUICK
    gone = run_in_process(tmp_path / "gone", only, 6, tamper=without((2, "masked"), from_round=1))
    keys = run_in_process(tmp_path / "keys", only, 6, tamper=without((2, "keys"), from_round=1))
    models = [lines(directory, "metrics.jsonl")[-1]["test_loss"] for directory in (gone, keys)]
    assert models[0] == pytest.approx(models[1], abs=1e-4)  # other weights, other rounding


def test_dropouts_at_every_stage_at_once(tmp_path: Path) -> None:
    overrides = SMALL + QUICK + " secure_aggregation.threshold=2"
    gone = without((0, "keys"), (1, "shares"), (2, "masked"), (3, "unmask"))
    directory = run_in_process(tmp_path / "run", overrides, 6, tamper=gone)
    second = rows(directory, 2)
    assert [client for client, row in second.items() if row["rejected"]] == [0, 1, 2]
    assert lines(directory, "metrics.jsonl")[-1]["replied"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["keys", "shares", "masked", "unmask"])
def test_too_many_dropouts_change_nothing_and_say_why(tmp_path: Path, stage: str) -> None:
    gone = without(*((client, stage) for client in range(5)))
    directory = run_in_process(tmp_path / "run", SMALL + QUICK, 6, tamper=gone)
    second, metrics = rows(directory, 2), lines(directory, "metrics.jsonl")
    assert metrics[-1]["test_loss"] == metrics[-2]["test_loss"]
    assert "too few" in second[5]["unused"]
    assert "are needed" in second[5]["unused"]


@pytest.mark.slow
def test_a_supernode_that_drops_out_takes_its_clients_along(tmp_path: Path) -> None:
    overrides = SMALL.replace("num_clients=6", "num_clients=9") + QUICK
    directory = run_in_process(tmp_path / "run", overrides, 4, tamper=without((3, "masked")))
    assert [client for client, row in rows(directory, 2).items() if row["rejected"]] == [3, 7]


@pytest.mark.slow
def test_surplus_clients_are_let_go_after_the_keys(tmp_path: Path) -> None:
    overrides = SMALL.replace("fraction_train=1", "fraction_train=0.5") + " federation.over_selection=1"
    directory = run_in_process(tmp_path / "run", overrides, 6, delay=lambda m: 0.3 * (m.metadata.src_node_id > 103))
    first = rows(directory, 1)
    surplus = [client for client, row in first.items() if row.get("unused", "").startswith("surplus")]
    assert len(first) == 6
    assert set(surplus) >= {4, 5}
    assert lines(directory, "metrics.jsonl")[1]["replied"] == 6 - len(surplus)


# --- screening ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), 1e5])
def test_a_client_does_not_send_an_update_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    call = LocalTraining.__call__

    def spoil(
        self: LocalTraining, model: torch.nn.Module, examples: Any, *, seed: Any, **options: Any
    ) -> TrainingResult:
        result = call(self, model, examples, seed=seed, **options)
        if seed[2] == 3:
            with torch.no_grad():
                next(model.parameters()).view(-1)[0] = value
        return result

    monkeypatch.setattr(LocalTraining, "__call__", spoil)
    directory = run_in_process(tmp_path / "run", SMALL + " strategy.max_update_norm=50", 3)
    for number in (1, 2):
        found = rows(directory, number)
        assert [client for client, row in found.items() if row["rejected"]] == [3]
        assert found[3]["rejected"] == "its update was not sent (see the client's log)"


def test_what_lies_beyond_the_clip_is_cut_and_counted(tmp_path: Path) -> None:
    directory = run_in_process(tmp_path / "run", SMALL + " secure_aggregation.clip=0.001")
    line = lines(directory, "metrics.jsonl")[-1]
    assert 0.1 < line["clipped"] < 1
    assert line["test_loss"] < lines(directory, "metrics.jsonl")[0]["test_loss"]


# --- what a hostile server is refused -------------------------------------------------------------------------------


def played(overrides: str = SMALL, nodes: int = 6, **grid: Any) -> InProcessGrid:
    return InProcessGrid(overrides, nodes, **grid)


def asked(grid: InProcessGrid, stage: str, node: int = 100, server_round: str = "1") -> Message:
    (found,) = [
        m
        for m in grid.sent
        if m.metadata.message_type == f"train.{stage}"
        and m.metadata.dst_node_id == node
        and m.metadata.group_id == server_round
    ]
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


def test_a_question_that_comes_twice_opens_nothing(tmp_path: Path) -> None:
    """Asked for its masked vector a second time, for another set of clients, a SuperNode answers neither."""
    grid = played()
    push = grid.push_messages
    again: list[Message] = []

    def twice(messages: Any) -> Any:
        messages = list(messages)
        found = push(messages)
        for message in messages:
            if message.metadata.message_type == "train.masked" and message.metadata.dst_node_id == 100:
                again.append(client_app(message, grid.contexts[100]))
        return found

    grid.push_messages = twice  # type: ignore[method-assign]
    directory = run_on(grid, tmp_path / "run", SMALL)
    assert len(again) == 2
    for reply in again:
        assert not reply.content.array_records
        assert "replayed" in str(reply.content.config_records["config"]["rejected"])
    assert summary(directory)["status"] == "finished"


def test_a_model_that_the_cohort_has_not_agreed_on_is_not_trained(tmp_path: Path) -> None:
    """A server could read an update out of the sum if it gave everyone else a model that learns nothing."""
    grid = played()
    push = grid.push_messages

    def other_model(messages: Any) -> Any:
        messages = list(messages)
        for message in messages:
            if message.metadata.message_type == "train.masked" and message.metadata.dst_node_id == 101:
                arrays = message.content.array_records["arrays"]
                zeros = {name: Array(np.zeros_like(array.numpy())) for name, array in arrays.items()}
                message.content["arrays"] = ArrayRecord(zeros)
        return push(messages)

    grid.push_messages = other_model  # type: ignore[method-assign]
    directory = run_on(grid, tmp_path / "run", SMALL + QUICK)
    for number in (1, 2):
        found = rows(directory, number)
        assert found[1]["rejected"] == "wrong cohort: the model is another one than the cohort has agreed on"
        assert [client for client, row in found.items() if row["rejected"]] == [1]


def test_a_plain_train_message_gets_no_update(tmp_path: Path) -> None:
    grid = played()
    run_on(grid, tmp_path / "run", SMALL)
    plain = Message(asked(grid, "masked").content, 100, "train")
    with pytest.raises(RuntimeError, match="ConfigError"):
        client_app(plain, grid.contexts[100])
    evaluate = Message(asked(grid, "masked").content, 100, "evaluate")
    found = client_app(evaluate, grid.contexts[100]).content
    assert found.metric_records["metrics"]["val-examples"] == [0.0]


def test_a_supernode_refuses_cohorts_below_its_min_cohort(tmp_path: Path) -> None:
    configs: list[dict[str, Any]] = [{"partition-id": i, "num-partitions": 6} for i in range(6)]
    configs[1]["min-cohort"] = 7
    configs[2]["min-cohort"] = 6
    directory = run_in_process(tmp_path / "run", SMALL + QUICK, node_configs=configs)
    first = rows(directory, 1)
    assert "too few: 6 clients in the sum, this client asks for 7 (min-cohort)" in first[1]["rejected"]
    # Without client 1 there are five, so client 2 does not go on either.
    assert "this client asks for 6" in first[2]["rejected"]
    assert summary(directory)["status"] == "finished"


def test_min_cohort_admits_no_run_without_secure_aggregation(tmp_path: Path) -> None:
    configs: list[dict[str, Any]] = [{"partition-id": i, "num-partitions": 3} for i in range(3)]
    configs[0]["min-cohort"] = 3
    plain = SMALL.replace("secaggplus", "none")
    directory = run_in_process(tmp_path / "run", plain, node_configs=configs)
    assert summary(directory)["clients"] == 4
    assert any("min-cohort" in fault for fault in summary(directory)["faults"].values())


@pytest.mark.parametrize("value", [1, 0, -3, 2.5, "many"])
def test_a_min_cohort_that_is_none_is_named(tmp_path: Path, value: object) -> None:
    configs: list[dict[str, Any]] = [{"partition-id": 0, "num-partitions": 1, "min-cohort": value}]
    with pytest.raises(FederationError, match="min-cohort"):
        run_in_process(tmp_path / "run", SMALL, node_configs=configs)


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
    stage, forge, word = FORGERIES[name]

    def tamper(reply: Message) -> Any:
        about = reply.metadata
        mine = (about.src_node_id, about.message_type, about.group_id) == (102, f"train.{stage}", "2")
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
        if about.message_type == "train.masked":
            if about.group_id == "1":
                earlier[client] = reply
            elif client == 0:
                (name,) = reply.content.array_records
                (key, array), *_ = reply.content.array_records[name].items()
                reply.content[name] = ArrayRecord({key: Array(array.numpy()[:-1].copy())})
            elif client == 1:
                reply.content = earlier[1].content
        if about.message_type == "train.shares" and client == 2 and about.group_id == "2":
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


# --- with everything else -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_under_differential_privacy_ledgers_are_as_without(tmp_path: Path) -> None:
    private = (
        " privacy=dp_sgd privacy.noise_multiplier=2 privacy.accountant=rdp privacy.sample_rate=0.5"
        " train.val_fraction=0 privacy.target_epsilon=100"
    )
    found = {}
    for secure in ("secaggplus", "none"):
        overrides = SMALL.replace("secaggplus", secure) + private + f" run.output_dir={tmp_path / secure}"
        found[secure] = run_in_process(tmp_path / secure, overrides)
    ours, theirs = (lines(found[name], "clients.jsonl") for name in ("secaggplus", "none"))
    for name in ("noise_multiplier", "sample_rate", "epsilon", "delta"):
        assert [row[name] for row in ours] == [row[name] for row in theirs]
    assert (found["secaggplus"] / "ledgers" / "client-0.jsonl").exists()
    line = lines(found["secaggplus"], "metrics.jsonl")[-1]
    assert line["train_loss"] is None  # no figure is covered
    assert "clipped" not in line


@pytest.mark.slow
def test_who_declines_is_not_in_the_sum_and_its_mask_is_taken_away(tmp_path: Path) -> None:
    """A client without budget is known only when it is asked to train, after it has shared its secrets."""
    private = (
        f" privacy=dp_sgd privacy.noise_multiplier=1 privacy.accountant=rdp privacy.sample_rate=0.5"
        f" train.val_fraction=0 privacy.target_epsilon=8 run.output_dir={tmp_path / 'run'}"
    )
    overrides = SMALL.replace("num_rounds=2", "num_rounds=40") + private
    directory = run_in_process(tmp_path / "run", overrides)
    assert "privacy budget" in summary(directory)["stop_reason"]
    assert summary(directory)["declined"] > 0


@pytest.mark.slow
def test_personal_heads_stay_where_they_are(tmp_path: Path) -> None:
    overrides = SMALL.replace("model=logistic_regression", "model=mlp federation.personal=head")
    directory = run_in_process(tmp_path / "run", overrides)
    metrics = lines(directory, "metrics.jsonl")
    assert metrics[-1]["val_loss"] < metrics[1]["val_loss"]


@pytest.mark.slow
def test_few_neighbours_and_another_modulus(tmp_path: Path) -> None:
    more = " secure_aggregation.neighbours=2 secure_aggregation.modulus_bits=24 secure_aggregation.bits=14"
    few = run_in_process(tmp_path / "run", SMALL + more, 6)
    line = lines(few, "metrics.jsonl")[-1]
    assert line["replied"] == 6
    assert line["test_loss"] < lines(few, "metrics.jsonl")[0]["test_loss"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("strategy=median", ["Median", "single"]),
        ("strategy=krum", ["MultiKrum", "secure_aggregation=none"]),
        ("federation.final_evaluation=true", ["final_evaluation"]),
        ("data=breast_cancer data.scaling=federated", ["data.scaling=federated", "secaggplus"]),
        ("secure_aggregation.threshold=7", ["5 + 1 = 6", "cohort of 6", "threshold=7"]),
        ("secure_aggregation.threshold=4 secure_aggregation.neighbours=2", ["2 + 1 = 3", "neighbours=2"]),
        ("secure_aggregation.neighbours=3", ["neighbours=3", "even"]),
        ("secure_aggregation.modulus_bits=16", ["modulus_bits=16", "6 x 1 x (2^21 + 1) = 12582918", "bits=13"]),
        ("secure_aggregation.clip=null", ["clip=null"]),
        ("secure_aggregation.clip=0", ["clip=0"]),
        ("secure_aggregation.modulus_bits=31", ["modulus_bits=31"]),
        ("federation.fraction_train=0.1 federation.min_clients=1", ["cohort of 1"]),
    ],
)
def test_what_cannot_work_is_refused_before_round_1(tmp_path: Path, overrides: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        run_in_process(tmp_path / "run", f"{SMALL} {overrides}")
    assert all(word in str(caught.value) for word in words), caught.value
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("threshold", "warned"), [(3, True), (4, False)])
def test_a_threshold_of_half_the_holders_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, threshold: int, warned: bool
) -> None:
    overrides = SMALL.replace("num_rounds=2", "num_rounds=1") + f" secure_aggregation.threshold={threshold}"
    with caplog.at_level("WARNING", logger="flwr"):
        run_in_process(tmp_path / "run", overrides)
    assert ("both of its secrets" in caplog.text) == warned


def test_keys_without_an_effect_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no effect under secure_aggregation=none"):
        run_in_process(tmp_path / "run", "secure_aggregation=none secure_aggregation.bits=8")


def test_flower_s_own_loop_is_told_that_it_cannot_drive_it(tmp_path: Path) -> None:
    from fedapp.config import compose
    from fedapp.learning.build import build_parts
    from fedapp.server.build import build_strategy
    from fedapp.server.population.preflight import Population
    from fedapp.server.population.roster import Roster

    config = compose(SMALL.split())
    roster = Roster(Population(dict.fromkeys(range(6), 100), dict.fromkeys(range(6), 10)))
    strategy = build_strategy(config, build_parts(config), roster)
    with pytest.raises(FederationError, match="four messages"):
        strategy.configure_train(1, None, ConfigRecord(), None)  # type: ignore[arg-type]
    with pytest.raises(FederationError, match="four messages"):
        strategy.aggregate_train(1, [])
