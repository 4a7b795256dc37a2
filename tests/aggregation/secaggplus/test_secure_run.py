"""Whole runs under secure aggregation, in this process: dropouts, limits, and what else is switched on with it."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message
from in_process import InProcessGrid, run_in_process, run_on
from own_keys import node_configs, write_keys
from rich.console import Console
from secure_runs import QUICK, SMALL, lines, rows, stage, summary

from fedapp.aggregation.protocol import protocol_of
from fedapp.aggregation.secaggplus.settings import Settings
from fedapp.aggregation.whole_numbers.metrics import ENTRIES
from fedapp.aggregation.whole_numbers.quantise import pack, unpack
from fedapp.common.errors import ConfigError, FederationError
from fedapp.common.state_digest import state_sha256
from fedapp.config import compose
from fedapp.launch.show import RoundBar, show_summary
from fedapp.learning.build import build_parts
from fedapp.learning.training import LocalTraining, TrainingResult
from fedapp.models.shared_state import shared_state
from fedapp.server.build import build_strategy
from fedapp.server.exchange import Exchange
from fedapp.server.population.preflight import AdmissionRules, preflight
from fedapp.server.population.roster import Roster
from fedapp.updates.norm_limit import NormLimit
from fedapp.updates.steps import steps_of
from fedapp.wire.records import arrays_to_state, state_to_arrays

PRICES = (
    "partition=iid data=synthetic data.shape=[5] data.num_classes=null data.num_examples=600 data.separation=1e5"
    " task/kind=regression task.kind.scaling=none"
)
STAGES = ("keys", "shares", "masked", "unmask")


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
    """Keys and masks are never the same twice; what is unmasked is."""
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
        replies = [m for m in grid.received if stage(m) == "masked"]
        assert len(replies) == 12
        seen.append(
            {array.data for m in replies for record in m.content.array_records.values() for array in record.values()}
        )
        asked = {(m.metadata.message_type, stage(m)) for m in grid.sent}
        assert asked == {("query", ""), *(("train", name) for name in STAGES)}
    assert len(seen[0]) == len(seen[1]) == 12
    assert not seen[0] & seen[1]


# --- dropouts -----------------------------------------------------------------------------------------------------


def without(*gone: tuple[int, str], from_round: int = 2) -> Callable[[Message], Message | None]:
    """Withholds replies: of SuperNode 100 + client to a stage, and to all that come after it in that round."""

    def tamper(reply: Message) -> Message | None:
        about = reply.metadata
        for client, first in gone:
            if about.src_node_id == 100 + client and stage(reply) in STAGES[STAGES.index(first) :]:
                return None if about.group_id == str(from_round) else reply
        return reply

    return tamper


@pytest.mark.parametrize("last", STAGES)
def test_a_client_that_drops_out_at_a_stage_costs_its_own_update(tmp_path: Path, last: str) -> None:
    directory = run_in_process(tmp_path / "run", SMALL + QUICK, 6, tamper=without((2, last)))
    second = rows(directory, 2)
    if last == "unmask":  # its vector is in the sum already
        assert all(row["rejected"] is None for row in second.values())
    else:
        assert second[2]["rejected"] == f"no reply in time ({last})"
        assert [client for client, row in second.items() if row["rejected"]] == [2]
    assert lines(directory, "metrics.jsonl")[-1]["replied"] == (6 if last == "unmask" else 5)
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
@pytest.mark.parametrize("last", STAGES)
def test_too_many_dropouts_change_nothing_and_say_why(tmp_path: Path, last: str) -> None:
    gone = without(*((client, last) for client in range(5)))
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


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
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


def test_a_mean_that_is_too_large_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As from clients that do not look at their own updates; its metrics do not count either."""
    monkeypatch.setattr(NormLimit, "on_client", lambda self, vector, *_: vector)
    with pytest.raises(FederationError, match="no round had"):
        run_in_process(tmp_path / "run", SMALL + " strategy.max_update_norm=0.001")
    for row in lines(tmp_path / "run", "clients.jsonl"):
        assert row["rejected"] is None
        assert row["unused"].startswith("nothing was aggregated: the mean update's norm")
        assert row["unused"].endswith("is above 0.001")
    metrics = lines(tmp_path / "run", "metrics.jsonl")
    assert len({line["test_loss"] for line in metrics}) == 1
    assert {line.get(name) for line in metrics for name in ("train_loss", "val_loss", "val_accuracy")} == {None}


@pytest.mark.slow
def test_updates_beyond_the_clip_are_scaled_down_and_counted(tmp_path: Path) -> None:
    directory = run_in_process(tmp_path / "run", SMALL + " secure_aggregation.clip=0.001", report=True)
    line = lines(directory, "metrics.jsonl")[-1]
    assert 0.1 < line["clipped"] < 1
    assert line["test_loss"] < lines(directory, "metrics.jsonl")[0]["test_loss"]
    (said,) = summary(directory)["warnings"]
    assert said.startswith(f"{100 * line['clipped']:.3g} % of the updates' entries lay beyond +-0.001")
    assert "secure_aggregation.clip=0.001" in said
    assert said.endswith("(in 2 rounds)")
    assert "Warnings" in (directory / "report.html").read_text()
    console = Console(record=True, width=200, file=io.StringIO())
    with RoundBar(console, 2) as bar:
        for figures in lines(directory, "metrics.jsonl"):
            bar.update(figures)
    show_summary(console, summary(directory), directory)
    text = console.export_text()
    assert f"clipped {100 * line['clipped']:.3g} %" in text
    assert text.count("warning: ") == 2  # as it happens, and at the end


def test_one_clients_impossible_metric_stops_no_run_and_is_named(tmp_path: Path) -> None:
    """It takes four of six clients from those who have an accuracy, so that the mean is above 1."""

    def lie(reply: Message) -> Message:
        if stage(reply) == "masked" and reply.metadata.src_node_id == 101:
            for record in reply.content.array_records.values():
                state = arrays_to_state(record)
                for packed in state.values():
                    vector = unpack(packed.numpy(), Settings(), len(packed) // 4)
                    vector[1 - 2 * ENTRIES] -= np.uint32(4 * 2**21)  # of val_accuracy, the last but one
                    packed.copy_(torch.from_numpy(pack(vector, Settings())))
                record.clear()
                record.update(dict(state_to_arrays(state).items()))
        return reply

    directory = run_in_process(tmp_path / "run", SMALL + " federation.target_accuracy=0.99", 3, tamper=lie)
    assert lines(directory, "metrics.jsonl")[-1]["val_accuracy"] is None  # in round 1 it was low, and 1/3 is possible
    assert any("the sum of val_accuracy is none that" in text for text in summary(directory)["warnings"])


def test_a_metric_too_large_to_be_sent_is_named(tmp_path: Path) -> None:
    """A regression on prices: its error has no bound, and was missing from the files without a word."""
    overrides = SMALL.replace("partition=iid", PRICES) + " optimizer.lr=1e-9"
    directory = run_in_process(tmp_path / "run", overrides)
    line = lines(directory, "metrics.jsonl")[-1]
    assert line["val_mae"] is None
    assert any("val_mae of 1 of the cohort is above 1024" in text for text in summary(directory)["warnings"])


def test_a_run_in_which_nothing_is_cut_says_nothing(secure: Path) -> None:
    assert summary(secure)["warnings"] == []
    assert "warnings" not in lines(secure, "metrics.jsonl")[-1]
    assert "<h2>Warnings</h2>" not in (secure / "report.html").read_text()


# --- what an operator asks for ------------------------------------------------------------------------------------


def test_a_supernode_refuses_cohorts_below_its_min_cohort(tmp_path: Path) -> None:
    configs = node_configs(write_keys(tmp_path / "devices", 4), 4)
    configs[1]["min-cohort"] = 5
    configs[2]["min-cohort"] = 4
    four = SMALL.replace("num_clients=6", "num_clients=4") + QUICK
    with pytest.raises(FederationError, match="no round had"):
        run_in_process(tmp_path / "run", four, node_configs=configs)
    first = rows(tmp_path / "run", 1)
    assert "too few: 4 clients in the sum, this client asks for 5 (min-cohort)" in first[1]["rejected"]
    # Without client 1 there are three, so client 2 does not go on either.
    assert "this client asks for 4" in first[2]["rejected"]
    assert not first[0]["rejected"]


def test_min_cohort_admits_no_run_without_secure_aggregation(tmp_path: Path) -> None:
    configs: list[dict[str, Any]] = [{"partition-id": i, "num-partitions": 3} for i in range(3)]
    configs[0] = {**node_configs(write_keys(tmp_path / "devices", 3), 3)[0], "min-cohort": 3}
    plain = SMALL.replace("secaggplus", "none")
    directory = run_in_process(tmp_path / "run", plain, node_configs=configs)
    assert summary(directory)["clients"] == 4
    assert any("min-cohort" in fault for fault in summary(directory)["faults"].values())


@pytest.mark.parametrize("value", [1, 0, -3, 2.5, "many"])
def test_a_min_cohort_that_is_none_is_named(tmp_path: Path, value: object) -> None:
    configs: list[dict[str, Any]] = [{"partition-id": 0, "num-partitions": 1, "min-cohort": value}]
    with pytest.raises(FederationError, match="min-cohort"):
        run_in_process(tmp_path / "run", SMALL, node_configs=configs)


# --- with everything else -----------------------------------------------------------------------------------------


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
    assert line["train_loss"] is None  # no metric is covered
    assert line["clipped"] is not None  # it follows from what was sent, which is covered


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
        ("secure_aggregation.clip=null", ["secure_aggregation.clip=null", "expected float"]),
        ("secure_aggregation.clip=0", ["secure_aggregation.clip=0", "greater than 0"]),
        ("secure_aggregation.bits=3", ["secure_aggregation.bits=3", "at least 4"]),
        ("secure_aggregation.modulus_bits=31", ["secure_aggregation.modulus_bits=31", "16, 24, 32, 40, 48, 56, 64"]),
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


def test_keys_of_an_option_that_is_not_chosen_are_refused() -> None:
    words = (
        r"secure_aggregation\.bits: the option that is chosen has no such key; .*secure_aggregation=secaggplus has it"
    )
    with pytest.raises(ConfigError, match=words):
        compose(["secure_aggregation=none", "secure_aggregation.bits=8"])


def test_flowers_own_loop_drives_it_too(secure: Path) -> None:
    """`Strategy.start` asks for a round's messages once; the four stages of the round are in that. The same model."""
    grid = InProcessGrid(SMALL, 6)
    config = compose(SMALL.split())
    parts = build_parts(config)
    roster = Roster(preflight(Exchange(grid), AdmissionRules(num_clients=6)))
    strategy = build_strategy(config, parts, roster, protocol_of(config), steps_of(config))
    result = strategy.start(grid, state_to_arrays(shared_state(parts.model)), num_rounds=2)
    asked = [stage(m) for m in grid.sent if m.metadata.message_type == "train"]
    assert asked == [name for _ in range(2) for name in STAGES for _ in range(6)]
    assert state_sha256(arrays_to_state(result.arrays)) == summary(secure)["model_sha256"]
    assert {number: metrics["clients"] for number, metrics in result.train_metrics_clientapp.items()} == {1: 6, 2: 6}


@pytest.mark.slow
def test_no_norm_limit_tells_who_is_above_it(tmp_path: Path) -> None:
    """Nobody is missing from the sum, however small the limit: whose update is larger cannot be found by trying."""
    for limit in (1e-3, 1e-2, 1.0):
        directory = run_in_process(tmp_path / f"{limit}", f"{SMALL} strategy.max_update_norm={limit}")
        assert {row["rejected"] for row in lines(directory, "clients.jsonl")} == {None}
        assert {row.get("unused") for row in lines(directory, "clients.jsonl")} == {None}
        losses = [line["test_loss"] for line in lines(directory, "metrics.jsonl")]
        assert losses[-1] < losses[0]
