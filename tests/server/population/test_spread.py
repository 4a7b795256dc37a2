"""Virtual clients go to whichever SuperNode has least to do; a client that keeps something there stays at home."""

from collections import Counter
from dataclasses import replace

import pytest

from fedapp.config import compose
from fedapp.server.check_config import check_config
from fedapp.server.population.preflight import Population
from fedapp.server.population.roster import Roster
from fedapp.server.population.spread import spread
from fedapp.server.run import keeps_nothing
from fedapp.updates.step import UpdateStep
from fedapp.updates.steps import UpdateSteps


def test_equal_clients_are_dealt_out_evenly() -> None:
    placed = spread(dict.fromkeys(range(10), 100), [7, 5])
    assert Counter(placed.values()) == {5: 5, 7: 5}


def test_the_load_is_even_by_examples_and_not_by_clients() -> None:
    loads = {0: 90, 1: 10, 2: 10, 3: 10, 4: 10, 5: 10, 6: 10, 7: 10, 8: 10, 9: 10}
    placed = spread(loads, [1, 2])
    assert placed[0] == 1
    assert all(placed[client] == 2 for client in range(1, 10))


def test_no_node_has_more_than_a_third_beyond_the_best_there_can_be() -> None:
    """Graham's bound, on loads for which the best is known: each node could have 60."""
    loads = dict(enumerate([31, 29, 30, 30, 20, 20, 20, 59, 1, 45, 15]))
    placed = spread(loads, range(5))
    done = Counter(dict.fromkeys(range(5), 0))
    for client, node in placed.items():
        done[node] += loads[client]
    assert max(done.values()) <= 60 * 4 / 3


def test_where_a_client_goes_does_not_depend_on_the_order_of_anything() -> None:
    loads = {client: 10 + client % 3 for client in range(20)}
    backwards = dict(reversed(loads.items()))
    assert spread(loads, [3, 1, 2]) == spread(backwards, [2, 1, 3])


def roster(*, movable: bool) -> Roster:
    """Two SuperNodes; four clients live on the first one, one on the other."""
    return Roster(Population({0: 100, 1: 100, 2: 100, 3: 100, 4: 101}, dict.fromkeys(range(5), 10)), movable=movable)


def test_who_can_move_does_and_who_cannot_stays() -> None:
    assert roster(movable=False).hosts([0, 1, 2, 3]) == dict.fromkeys(range(4), 100)
    assert Counter(roster(movable=True).hosts([0, 1, 2, 3]).values()) == {100: 2, 101: 2}


def test_nobody_moves_to_a_supernode_that_is_gone_or_busy() -> None:
    found = roster(movable=True)
    found.busy = {101}
    assert set(found.hosts([0, 1, 4]).values()) == {100}
    found.busy, found.present = (), {101}
    assert set(found.hosts([0, 1, 4]).values()) == {101}
    found.busy = {101}  # then the question goes to where each lives
    assert found.hosts([0, 4]) == {0: 100, 4: 101}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("", True),
        ("federation.personal=head model=mlp", False),
        ("privacy=dp_sgd", False),
        ("secure_aggregation=secaggplus", False),
    ],
)
def test_who_keeps_something_is_known(overrides: str, expected: bool) -> None:
    assert keeps_nothing(check_config(compose(overrides.split()))) is expected


@pytest.mark.parametrize("keeps", [True, False])
def test_an_update_step_may_keep_something(keeps: bool) -> None:
    class Noting(UpdateStep):
        keeps_state = keeps

    checked = check_config(compose([]))
    assert keeps_nothing(replace(checked, steps=UpdateSteps((Noting(),)))) is not keeps
