"""Cohorts are functions of (seed, round, clients); weights of the counts."""

import math
import random

import pytest

from fedapp.server.population.cohort import cohort_size, cohort_weights, sample_cohort


def test_the_cohort_depends_on_seed_round_and_the_set_of_clients_only() -> None:
    random.seed(1)
    first = sample_cohort([5, 3, 9, 1, 7], 3, seed=0, server_round=4)
    random.seed(2)
    assert sample_cohort([9, 7, 5, 3, 1], 3, seed=0, server_round=4) == first
    others = [sample_cohort(range(100), 10, seed=s, server_round=r) for s in range(3) for r in range(3)]
    assert len({tuple(cohort) for cohort in others}) == 9


def test_every_client_is_sampled_equally_often() -> None:
    counts = dict.fromkeys(range(10), 0)
    rounds = 3000
    for server_round in range(rounds):
        for client in sample_cohort(range(10), 3, seed=0, server_round=server_round):
            counts[client] += 1
    # Binomial(3000, 0.3): 5 standard deviations are 126; a false alarm has a chance below 1e-5 for all ten together.
    assert all(abs(count - 900) < 126 for count in counts.values())


@pytest.mark.parametrize(
    ("clients", "fraction", "minimum", "size"),
    [(20, 0.5, 2, 10), (100, 0.07, 1, 7), (100, 0.29, 1, 29), (3, 0.1, 2, 2), (3, 1.0, 2, 3), (1, 0.5, 2, 1)],
)
def test_cohort_size(clients: int, fraction: float, minimum: int, size: int) -> None:
    assert cohort_size(clients, fraction, minimum) == size


def test_weightings_and_cap() -> None:
    counts = {0: 4, 1: 100, 2: 9}
    assert cohort_weights(counts, "num_examples", None) == {0: 4.0, 1: 100.0, 2: 9.0}
    assert cohort_weights(counts, "uniform", None) == {0: 1.0, 1: 1.0, 2: 1.0}
    assert cohort_weights(counts, "sqrt", None) == {0: 2.0, 1: 10.0, 2: 3.0}
    assert cohort_weights(counts, "num_examples", 9.0) == {0: 4.0, 1: 9.0, 2: 9.0}
    assert math.fsum(cohort_weights(counts, "sqrt", 2.5).values()) == 7.0
