"""Clients in fixed batches that take part all or none (So et al. 2023): no difference of sums tells of fewer."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from flwr.app import Message
from hostile_server import HostileServer, halves
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import InProcessGrid, run_in_process, run_on
from own_keys import node_configs, write_keys
from secure_rounds import Played, mask, play
from secure_runs import QUICK, SMALL, lines, rows, stage, summary

from fedapp.aggregation.protocol import protocol_of
from fedapp.aggregation.secaggplus.batches import BatchSums, in_complete
from fedapp.aggregation.secaggplus.cohort_view import CohortView
from fedapp.aggregation.secaggplus.least_sum import ANY, LeastSum
from fedapp.aggregation.secaggplus.member import share
from fedapp.aggregation.secaggplus.settings import Settings
from fedapp.aggregation.secaggplus.unmasking import agree, unmask
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.common.errors import ConfigError, FederationError
from fedapp.config import compose
from fedapp.launch.check import check
from fedapp.server.build import cohort_rule
from fedapp.server.check_config import check_cohort, check_config

MODES = ("honest", "random", "isolate")
THREES = Settings(bits=12, batches=3)
PART = r"too few: the sum would hold a part of a batch, without clients \[4\]"


def rule(batches: int | None, seed: int = 0):  # type: ignore[no-untyped-def]
    given = "null" if batches is None else str(batches)
    overrides = ["secure_aggregation=secaggplus", f"secure_aggregation.batches={given}", f"run.seed={seed}"]
    return cohort_rule(compose([*overrides, "federation.num_clients=24", "federation.fraction_train=0.5"]))


# --- what many rounds tell ----------------------------------------------------------------------------------------


def participation(batches: int | None, rounds: int = 200) -> np.ndarray:
    """By round and client, who is in the sum; one of ten drops out."""
    random, made, found = Random(7), rule(batches), np.zeros((rounds, 24))
    for number in range(rounds):
        cohort = made.sample(range(24), 12, number + 1)
        left = [client for client in cohort if random.random() > 0.1]
        found[number, sorted(in_complete(left, batches or 1))] = 1
    return found


def solvable(matrix: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether a linear combination of the rounds' sums is this one."""
    rank = np.linalg.matrix_rank(matrix)
    return bool(np.linalg.matrix_rank(np.vstack([matrix, wanted])) == rank)


def test_no_combination_of_sums_over_many_rounds_tells_of_less_than_a_batch() -> None:
    matrix, single = participation(4), np.eye(24)
    assert matrix.any(axis=0).all()
    for first in range(0, 24, 4):  # equal columns: equal coefficients in every combination
        assert (matrix[:, first : first + 4] == matrix[:, [first]]).all()
    assert not any(solvable(matrix, single[client]) for client in range(24))
    pair, batch = single[0] + single[1], single[:4].sum(axis=0)
    assert not solvable(matrix, pair)
    assert solvable(matrix, batch)  # and that is what it does tell


def test_without_batches_they_tell_of_single_clients() -> None:
    matrix = participation(None)
    assert all(solvable(matrix, one) for one in np.eye(24))


def test_cohorts_are_whole_batches_by_seed_round_and_clients_and_batches_the_same_for_every_seed() -> None:
    made = rule(4)
    clients = [23, *range(1, 23)]  # without client 0: its batch is not there
    first = made.sample(clients, 12, 3)
    assert first == made.sample(sorted(clients), 12, 3)
    assert len(first) == 12
    assert in_complete(first, 4) == set(first)
    assert not {1, 2, 3} & set(first)
    others = {tuple(rule(4, seed).sample(range(24), 12, number)) for seed in range(3) for number in range(3)}
    assert len(others) > 3
    assert all(in_complete(cohort, 4) == set(cohort) for cohort in others)
    assert len(made.sample(range(24), 10, 1)) == 12  # rounded up
    assert made.sample(range(3), 2, 1) == []


# --- dropouts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gone", "survivors"),
    [
        (((), (), (4,), ()), [0, 1, 2, 6, 7, 8]),
        (((), (4,), (), ()), [0, 1, 2, 6, 7, 8]),
        (((), (), (3, 4, 5), ()), [0, 1, 2, 6, 7, 8]),
        (((), (), (), (4,)), list(range(9))),  # its vector is in the sum already
    ],
)
def test_a_dropout_takes_its_batch_out_of_the_sum(gone: tuple[tuple[int, ...], ...], survivors: list[int]) -> None:
    played = play(9, THREES, gone=gone)
    unmasked = played.server.unmask()
    assert list(unmasked.survivors) == survivors
    assert (unmasked.total == played.plain(survivors)).all()
    assert played.server.left_out == set(range(9)) - set(survivors) - set(sum(gone, ()))


def test_two_dropouts_of_two_batches_leave_too_few() -> None:
    played = play(9, THREES, gone=((), (), (1, 4), ()), upto="shares")
    present = played.server.close_shares()
    for client in set(present) - {1, 4}:
        _, vector = mask(
            played.secrets[client], played.view, present, played.server.sealed_for(client), played.vectors[client]
        )
        played.server.add_masked([client], vector)
    with pytest.raises(ProtocolError, match="too few: 3 clients sent a masked vector"):
        played.server.close_masked()


def test_parts_of_several_batches_in_one_vector_are_refused() -> None:
    one = np.ones(4, np.uint32)
    sums = BatchSums(2)
    with pytest.raises(ProtocolError, match="parts of several batches"):
        sums.add([0, 2], one)
    with pytest.raises(ProtocolError, match="parts of several batches"):
        sums.add([0, 1, 2], one)
    sums.add([0], one)
    sums.add([2, 3, 4, 5], one)
    assert sums.complete == {2, 3, 4, 5}
    sums.add([1], one)
    assert sums.complete == set(range(6))
    assert [vector.tolist() for vector in sums.vectors.values()] == [[3] * 4]
    assert (one == 1).all()


# --- what a client refuses ----------------------------------------------------------------------------------------


def test_a_client_refuses_a_sum_without_a_part_of_any_batch_at_every_stage() -> None:
    played = play(9, THREES, upto="masked")
    view = played.server.view
    survivors = [client for client in range(9) if client != 4]
    for client in (0, 3):  # of another batch, and of that one
        with pytest.raises(ProtocolError, match=PART):
            unmask(played.secrets[client], view, survivors, [4])
        with pytest.raises(ProtocolError, match=PART):
            agree(played.secrets[client], view, survivors, [4], ANY)
    assert unmask(played.secrets[0], view, [0, 1, 2, 6, 7, 8], [3, 4, 5]).key_shares.keys() == {3, 4, 5}


def test_it_neither_trains_nor_shares_its_secrets_for_one() -> None:
    played = play(9, THREES, upto="shares")
    played.server.close_shares()
    present = [client for client in range(9) if client != 4]
    sealed = {s: v for s, v in played.server.sealed_for(0).items() if s != 4}
    with pytest.raises(ProtocolError, match=PART):
        mask(played.secrets[0], played.view, present, sealed, np.zeros(50, np.int64))
    played = play(9, THREES, upto="keys")
    view = played.server.close_keys()
    members = tuple(replace(m, weight=1 / 8) for m in view.members if m.client != 4)
    with pytest.raises(ProtocolError, match=PART):
        share(played.secrets[0], replace(view, members=members))


def test_batches_are_part_of_what_clients_are_bound_to() -> None:
    played = play(6, THREES, upto="masked")
    view = played.server.view
    for other in (None, 2):
        told = replace(view, settings=replace(THREES, batches=other))
        with pytest.raises(ProtocolError, match="wrong cohort"):
            unmask(played.secrets[0], told, range(6), [])


def around(view: CohortView) -> list[int]:
    ring, left = [view.members[0].client], {m.client for m in view.members[1:]}
    while left:
        ring.append(min(left & set(view.neighbours(ring[-1]))))
        left.discard(ring[-1])
    return ring


def test_a_batch_that_dropouts_have_cut_in_two_is_in_no_sum() -> None:
    """With two neighbours each, survivors fall into parts that can be unmasked apart; so each needs whole batches."""
    setting = Settings(2, 2, bits=12, batches=2)
    for number in range(20):
        played: Played = play(8, setting, upto="keys", server_round=number)
        view = played.server.close_keys()
        ring = around(view)
        gone = {ring[0], ring[0] ^ 1}
        survivors = set(range(8)) - gone
        for client in survivors:
            component = view.component(client, survivors)
            if in_complete(component, 2) == component:
                ANY.check(view, client, survivors)
            else:
                with pytest.raises(ProtocolError, match="part of a batch"):
                    ANY.check(view, client, survivors)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.integers(2, 4), st.sampled_from([2, 3]), st.sampled_from(MODES), st.integers(0, 2**32))
def test_a_hostile_server_learns_no_sum_over_a_part_of_a_batch(count: int, size: int, mode: str, seed: int) -> None:
    cohort = count * size
    setting = Settings(None, cohort // 2 + 1, bits=12, batches=size)
    known = HostileServer(halves(cohort, setting, LeastSum(2, signed=True)), setting, Random(seed)).play(1, mode)
    assert known.both_secrets() == []
    for part in known.openable():
        assert in_complete(part, size) == part


# --- configs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("secure_aggregation.batches=1", "secure_aggregation.batches"),
        ("secure_aggregation.batches=4", r"federation.num_clients=10: clients \[8, 9\] are in no complete group"),
        ("secure_aggregation.batches=11", "federation.num_clients=10: clients .* in no complete group"),
        (
            "secure_aggregation.batches=5 federation.fraction_train=0.7",
            r"a cohort of 7 .* is not .* federation.min_clients=10, or .*=1, or",
        ),
        ("secure_aggregation.batches=5 federation.fraction_train=0.2", r"cohort of 2 .* federation.min_clients=5"),
        (
            "secure_aggregation.batches=5 federation.fraction_train=0.1 federation.min_clients=6",
            "a cohort of 6 .* is not made of whole batches; for one of 10",
        ),
    ],
)
def test_what_batches_cannot_work_with_is_said_before_anything_starts(
    tmp_path: Path, overrides: str, words: str
) -> None:
    config = "secure_aggregation=secaggplus model=logistic_regression federation.num_clients=10 " + overrides
    with pytest.raises(ConfigError, match=words):
        check(compose(config.split()), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("clients", "words"),
    [
        ([0, 1, 3, 4, 6], "batches=3: no batch is complete"),
        ([0, 1, 2, 3, 4], "federation.min_clients=4: of 5 clients 3 are in complete groups"),
    ],
)
def test_devices_without_enough_whole_batches_are_named_at_the_preflight(clients: Sequence[int], words: str) -> None:
    overrides = "secure_aggregation=secaggplus secure_aggregation.batches=3 federation.min_clients=4"
    checked = check_config(compose(overrides.split()))
    with pytest.raises(ConfigError, match=words):
        check_cohort(checked, clients)


@pytest.mark.parametrize("num_clients", [6, 9, 21, 33, 99, 300])
@pytest.mark.parametrize("needed", [1, 2, 4, 5])
def test_the_remedy_works(num_clients: int, needed: int) -> None:
    setting = Settings(batches=3)
    with pytest.raises(ConfigError) as raised:
        setting.check_batches(needed, num_clients)
    fraction = float(str(raised.value).split("fraction_train=")[1].split(",")[0])
    made = replace(rule(3), fraction=fraction, minimum=1)
    assert made.needed(num_clients) % 3 == 0
    assert made.needed(num_clients) >= needed


# --- whole runs ---------------------------------------------------------------------------------------------------

PAIRS = SMALL + " secure_aggregation.batches=2"
STAGES = ("keys", "shares", "masked", "unmask")


def without(client: int, first: str) -> Callable[[Message], Message | None]:
    def tamper(reply: Message) -> Message | None:
        late = stage(reply) in STAGES[STAGES.index(first) :] and reply.metadata.group_id == "2"
        return None if late and reply.metadata.src_node_id == 100 + client else reply

    return tamper


def test_with_everybody_there_batches_change_nothing(tmp_path: Path) -> None:
    """Also where a batch's clients are on two SuperNodes, which send their parts of it apart."""
    found = [
        summary(run_in_process(tmp_path / str(number), given, nodes))["model_sha256"]
        for number, (given, nodes) in enumerate(((SMALL, 2), (PAIRS, 2), (PAIRS, 4)))
    ]
    assert len(set(found)) == 1


@pytest.mark.parametrize("last", STAGES)
def test_in_a_run_a_dropout_costs_its_batch_and_its_batch_alone_has_no_fault(tmp_path: Path, last: str) -> None:
    directory = run_in_process(tmp_path / "run", PAIRS + QUICK, 6, tamper=without(3, last))
    second = rows(directory, 2)
    if last == "unmask":
        assert not any(row["rejected"] or row.get("unused") for row in second.values())
        return
    assert [client for client, row in second.items() if row["rejected"]] == [3]
    assert {c: row["unused"] for c, row in second.items() if row.get("unused")} == {
        2: "its batch is not complete (secure_aggregation.batches)"
    }
    # Its other client has replied to all messages but the last.
    assert lines(directory, "metrics.jsonl")[-1]["replied"] == (5 if last == "masked" else 4)
    assert summary(directory)["status"] == "finished"


def test_a_batch_with_an_excluded_client_is_asked_again_where_no_other_is_there(tmp_path: Path) -> None:
    overrides = PAIRS.replace("num_clients=6", "num_clients=4") + QUICK
    overrides = overrides.replace("exclude_after=null", "exclude_after=1") + " federation.min_clients=4"
    overrides = overrides.replace("num_rounds=2", "num_rounds=3")
    directory = run_in_process(tmp_path / "run", overrides, 4, tamper=without(3, "keys"))
    assert sorted(rows(directory, 3)) == [0, 1, 2, 3]
    assert lines(directory, "metrics.jsonl")[-1]["replied"] == 4


def test_devices_refuse_a_server_that_leaves_a_client_of_a_batch_out(tmp_path: Path) -> None:
    """It says to everyone that client 3 was lost, after its vector came."""
    once = PAIRS.replace("num_rounds=2", "num_rounds=1").replace("num_clients=6", "num_clients=4") + QUICK
    grid = InProcessGrid(once, node_configs=node_configs(write_keys(tmp_path / "devices", 4), 4))
    push, refused = grid.push_messages, []

    def lie(messages):  # type: ignore[no-untyped-def]
        messages = list(messages)
        for message in messages:
            if stage(message) == "consistency":
                message.content["secure"]["survivors"], message.content["secure"]["dropped"] = [0, 1, 2], [3]
        return push(messages)

    def look(reply: Message) -> Message:
        if stage(reply) == "consistency":
            refused.append(str(reply.content))
        return reply

    grid.push_messages, grid._tamper = lie, look  # type: ignore[assignment,method-assign]
    with pytest.raises(FederationError, match="no round had"):
        run_on(grid, tmp_path / "run", once)
    assert len(refused) == 4
    assert all("part of a batch, without clients [3]" in text for text in refused[:3])


def test_no_other_protocol_has_groups() -> None:
    assert protocol_of(compose([])).groups([3, 1]) == [(1,), (3,)]
    assert protocol_of(compose(["secure_aggregation=secaggplus"])).groups([3, 1]) == [(1,), (3,)]
