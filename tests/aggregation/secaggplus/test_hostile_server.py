"""A server that sends anything, to anybody, in any order, never learns a sum over fewer clients than a site asks for.

The clients are real halves with all of their operator's limits. What the server could work out is computed from what it
was given (`tests/hostile_server.py`), not by guessing masks.
"""

from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hostile_server import HostileServer, Known, halves
from hypothesis import given, settings
from hypothesis import strategies as st

from fedapp.aggregation.secaggplus.least_sum import LeastSum
from fedapp.aggregation.secaggplus.settings import Settings

MODES = ("honest", "random", "isolate")
Case = tuple[int, Settings, int]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A cohort, its graph with a threshold above half of the holders, and the smallest sum that its sites accept."""
    cohort = draw(st.integers(4, 9))
    neighbours = draw(st.sampled_from([None, 2, 4, 6]))
    holders = Settings(neighbours).degree(cohort) + 1
    threshold = draw(st.integers(holders // 2 + 1, holders))
    return cohort, Settings(neighbours, threshold, bits=12), draw(st.integers(2, cohort))


def check(known: Known, least: int, colluders: int = 0) -> None:
    assert known.both_secrets() == []
    for part in known.openable():
        assert len(part) >= least - colluders, part
        assert known.worth(part) >= min(len(part), least / 2) - colluders


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(cases(), st.sampled_from(MODES), st.integers(0, 2**32))
def test_no_sum_over_fewer_than_min_cohort_clients_and_never_both_secrets(case: Case, mode: str, seed: int) -> None:
    cohort, setting, least = case
    clients = halves(cohort, setting, LeastSum(least, signed=True))
    check(HostileServer(clients, setting, Random(seed)).play(1, mode), least)


@settings(max_examples=12, deadline=None)
@given(st.integers(5, 9), st.integers(0, 3), st.sampled_from(MODES), st.integers(0, 2**32))
def test_nor_with_as_many_colluders_as_the_threshold_bears(cohort: int, spare: int, mode: str, seed: int) -> None:
    """Everyone is everyone's neighbour: the colluders' own updates are all that the sum is short of."""
    setting = Settings(None, min(cohort, cohort // 2 + 1 + spare), bits=12)
    random = Random(seed)
    colluders = random.sample(range(cohort), setting.colluders(cohort))
    if len(colluders) > cohort - 2:
        return
    clients = halves(cohort, setting, LeastSum(cohort - 1, signed=True))
    check(HostileServer(clients, setting, random, colluders).play(1, mode), cohort - 1, len(colluders))


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(st.integers(4, 7), st.lists(st.sampled_from(MODES), min_size=3, max_size=3), st.integers(0, 2**32))
def test_nor_two_sums_of_one_model_over_different_clients(cohort: int, modes: list[str], seed: int) -> None:
    setting = Settings(None, cohort // 2 + 1, bits=12)
    with TemporaryDirectory() as place:
        server = HostileServer(halves(cohort, setting, LeastSum(2, signed=True), Path(place)), setting, Random(seed))
        sums = [part for number, mode in enumerate(modes, start=1) for part in server.play(number, mode).openable()]
    assert len({frozenset(part) for part in sums}) <= 1


# --- the test itself would find it ---------------------------------------------------------------------------------


def test_an_honest_server_learns_the_sum_over_everyone_and_no_other() -> None:
    for neighbours in (None, 4):
        setting = Settings(neighbours, 3 if neighbours else 5, bits=12)
        random = Random(3)
        random.random = lambda: 0.0  # type: ignore[method-assign]  # nobody drops out
        known = HostileServer(halves(8, setting, LeastSum(8, signed=True)), setting, random).play(1, "honest")
        assert known.openable() == [set(range(8))]


@pytest.mark.parametrize("least", [LeastSum(2), LeastSum(6)])
def test_without_signed_lists_it_isolates_a_client(least: LeastSum) -> None:
    setting, smallest = Settings(4, 3, bits=12), 12
    for seed in range(4):
        known = HostileServer(halves(12, setting, least), setting, Random(seed)).play(1, "isolate")
        smallest = min([smallest, *map(len, known.openable())])
    assert smallest == 1


def test_without_a_record_it_gets_two_sums_of_one_model() -> None:
    setting = Settings(None, 4, bits=12)
    found = set()
    for seed in range(6):
        server = HostileServer(halves(6, setting, LeastSum(2, signed=True)), setting, Random(seed))
        found |= {frozenset(part) for number in (1, 2) for part in server.play(number, "honest").openable()}
    assert len(found) > 1
