"""Cohorts are functions of (seed, round, clients); weights of the counts."""

import math
import random

import pytest

from fedapp.server.population.cohort import CohortRule


def test_the_cohort_depends_on_seed_round_and_the_set_of_clients_only() -> None:
    random.seed(1)
    first = CohortRule(seed=0).sample([5, 3, 9, 1, 7], 3, 4)
    random.seed(2)
    assert CohortRule(seed=0).sample([9, 7, 5, 3, 1], 3, 4) == first
    others = [CohortRule(seed=s).sample(range(100), 10, r) for s in range(3) for r in range(3)]
    assert len({tuple(cohort) for cohort in others}) == 9


def test_every_client_is_sampled_equally_often() -> None:
    counts = dict.fromkeys(range(10), 0)
    rule, rounds = CohortRule(seed=0), 3000
    for server_round in range(rounds):
        for client in rule.sample(range(10), 3, server_round):
            counts[client] += 1
    # Binomial(3000, 0.3): 5 standard deviations are 126; a false alarm has a chance below 1e-5 for all ten together.
    assert all(abs(count - 900) < 126 for count in counts.values())


@pytest.mark.parametrize(
    ("clients", "fraction", "minimum", "size"),
    [(20, 0.5, 2, 10), (100, 0.07, 1, 7), (100, 0.29, 1, 29), (3, 0.1, 2, 2), (3, 1.0, 2, 3), (1, 0.5, 2, 1)],
)
def test_how_many_a_round_needs(clients: int, fraction: float, minimum: int, size: int) -> None:
    assert CohortRule(seed=0, fraction=fraction, minimum=minimum).needed(clients) == size


@pytest.mark.parametrize(
    ("over_selection", "needed", "clients", "asked"),
    [(0.0, 10, 100, 10), (0.5, 10, 100, 15), (0.1, 110, 200, 121), (0.01, 10, 100, 11), (10.0, 10, 100, 100)],
)
def test_how_many_are_asked(over_selection: float, needed: int, clients: int, asked: int) -> None:
    """0.1 beyond 110 is 121.00000000000001 in floating point, and must not become 122."""
    assert CohortRule(seed=0, over_selection=over_selection).asked(needed, clients) == asked


def test_weightings_and_cap() -> None:
    counts = {0: 4, 1: 100, 2: 9}
    assert CohortRule(seed=0).weights(counts) == {0: 4 / 113, 1: 100 / 113, 2: 9 / 113}
    assert CohortRule(seed=0, weighting="uniform").weights(counts) == dict.fromkeys(counts, 1 / 3)
    assert CohortRule(seed=0, weighting="sqrt").weights(counts) == {0: 2 / 15, 1: 10 / 15, 2: 3 / 15}
    assert CohortRule(seed=0, weight_cap=9.0).weights(counts) == {0: 4 / 22, 1: 9 / 22, 2: 9 / 22}
    capped = CohortRule(seed=0, weighting="sqrt", weight_cap=2.5).weights(counts)
    assert capped == {0: 2 / 7, 1: 2.5 / 7, 2: 2.5 / 7}
    assert math.fsum(capped.values()) == 1.0
