"""What is unmasked is the plain sum of those who remain, or nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from secure_rounds import mask, play

from fedapp.aggregation.secaggplus.settings import Settings
from fedapp.aggregation.secaggplus.unmasking import unmask
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError

Case = tuple[int, Settings, tuple[set[int], ...]]


@st.composite
def rounds(draw: st.DrawFn, largest: int) -> Case:
    """A cohort of 2 to `largest`, and 0 to n - t dropouts over the four stages, at one of them or at several."""
    cohort = draw(st.integers(2, largest))
    modulus = draw(st.sampled_from([24, 32, 40, 64]))
    threshold = draw(st.one_of(st.none(), st.integers(2, cohort)))
    setting = Settings(None, threshold, bits=draw(st.integers(2, 17)), modulus_bits=modulus)
    at_keys = draw(st.sets(st.integers(0, cohort - 1), max_size=cohort - setting.needed(cohort)))
    left = cohort - len(at_keys)
    spare = max(0, left - setting.needed(left))  # n is the number of clients that share: without threshold t shrinks
    others = draw(st.lists(st.sampled_from(sorted(set(range(cohort)) - at_keys)), max_size=spare, unique=True))
    stages = draw(st.lists(st.integers(1, 3), min_size=len(others), max_size=len(others)))
    gone = [at_keys, set[int](), set[int](), set[int]()]
    for client, stage in zip(others, stages, strict=True):
        gone[stage].add(client)
    return cohort, setting, tuple(gone)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(rounds(50), st.integers(0, 2**32))
def test_the_unmasked_sum_is_the_plain_one_for_cohorts_of_2_to_50(case: Case, seed: int) -> None:
    unmasked_is_plain(case, seed)


@settings(max_examples=15, deadline=None)
@given(rounds(12), st.integers(0, 2**32))
def test_the_unmasked_sum_is_the_plain_one(case: Case, seed: int) -> None:
    unmasked_is_plain(case, seed)


def unmasked_is_plain(case: Case, seed: int) -> None:
    cohort, setting, gone = case
    played = play(cohort, setting, length=7, seed=seed, gone=gone)
    unmasked = played.server.unmask()
    assert set(unmasked.survivors) == set(range(cohort)) - gone[0] - gone[1] - gone[2]
    assert np.array_equal(unmasked.total, played.plain(unmasked.survivors))
    assert unmasked.shares_refused == ()


@settings(max_examples=8, deadline=None)
@given(st.integers(8, 40), st.sampled_from([2, 4, 6, 10]), st.integers(0, 2**32), st.data())
def test_it_is_so_with_few_neighbours_or_nothing_is_unmasked(
    cohort: int, neighbours: int, seed: int, data: st.DataObject
) -> None:
    setting = Settings(neighbours, threshold=neighbours // 2 + 1, bits=12)
    gone = tuple(data.draw(st.sets(st.integers(0, cohort - 1), max_size=2)) for _ in range(4))
    try:
        played = play(cohort, setting, length=5, seed=seed, gone=gone)
        unmasked = played.server.unmask()
    except ProtocolError as error:
        if error.kind == "too few" and any(gone):
            return
        raise
    assert np.array_equal(unmasked.total, played.plain(unmasked.survivors))


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("threshold", [2, 4, None])
def test_one_dropout_more_than_can_be_borne_unmasks_nothing(stage: int, threshold: int | None) -> None:
    setting = Settings(None, threshold, bits=12)
    spare = 6 - setting.needed(6)
    for dropouts, unmasks in ((spare, True), (spare + 1, False)):
        gone: list[set[int]] = [set(), set(), set(), set()]
        gone[stage] = set(range(dropouts))
        if unmasks:
            assert play(6, setting, gone=tuple(gone)).server.unmask().total.any()
            continue
        with pytest.raises(ProtocolError, match="too few"):
            play(6, setting, gone=tuple(gone)).server.unmask()


def test_a_supernode_may_add_the_vectors_of_its_clients() -> None:
    played = play(6, Settings(bits=12), upto="shares")
    server, present = played.server, played.server.close_shares()
    for group in ((0, 3), (1, 4, 5), (2,)):
        total = np.zeros(50, np.uint32)
        for client in group:
            played.secrets[client], vector = mask(
                played.secrets[client], played.view, present, server.sealed_for(client), played.vectors[client]
            )
            total += vector
        server.add_masked(group, total)
    survivors = server.close_masked()
    for client in survivors:
        server.add_revealed(client, unmask(played.secrets[client], played.view, survivors, ()))
    assert np.array_equal(server.unmask().total, played.plain(range(6)))


def test_weights_are_normalised_over_those_who_sent_keys() -> None:
    played = play(5, Settings(bits=12), gone=({0}, (), (), ()), upto="shares")
    assert [member.weight for member in played.view.members] == [0.25] * 4


@pytest.mark.parametrize("cohort", [10, 30, 99, 100])
def test_the_graph_is_a_ring_with_chords(cohort: int) -> None:
    setting = Settings(8, bits=12)
    view = play(cohort, setting, upto="keys").server.close_keys()
    order = {}
    for client in range(cohort):
        near = view.neighbours(client)
        assert len(near) == len(set(near)) == 8
        assert client not in near
        assert view.holders(client) == tuple(sorted({*near, client}))
        assert all(client in view.neighbours(other) for other in near)
        order[client] = near
    other = play(cohort, setting, upto="keys").server.close_keys()
    # Another round, other keys, and so another ring; the same one by chance: less than 1 in 10^5.
    assert any(other.neighbours(client) != order[client] for client in range(cohort))
