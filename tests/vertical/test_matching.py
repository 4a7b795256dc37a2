"""Private set intersection is set intersection, and odd points are refused by name."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedapp.common.errors import DataError
from fedapp.vertical.group import NEUTRAL, blinded, check_points, first_equal, points_in
from fedapp.vertical.identities import check_unique, is_enumerable, joined, normalise
from fedapp.vertical.matching import double, hide, hide_distinct, match
from fedapp.vertical.party_error import PartyError

MOST = 1000
TEXT = st.text(max_size=6) | st.sampled_from(["", "é", "e\u0301", "N1", "n1 ", "\ud800", "\x00", "1:a"])


def matched(label_side: list[str], other: list[str]) -> list[int]:
    """By row of the label party, the row of the other party with the same identity, -1 for none."""
    own, theirs = hide_distinct(label_side, "a|b"), hide(other, "a|b")
    places = match(own, theirs.points, double(own.blinded.points, theirs, most=MOST), most=MOST)
    return [int(theirs.rows[place]) if place >= 0 else -1 for place in places]


@settings(max_examples=25, deadline=None)
@given(st.lists(TEXT, max_size=8), st.lists(TEXT, max_size=8, unique=True))
def test_matching_is_intersection(label_side: list[str], other: list[str]) -> None:
    expected = [other.index(identity) if identity and identity in other else -1 for identity in label_side]
    assert matched(label_side, other) == expected


def test_a_tenth_in_common_and_repeated_entities() -> None:
    label_side = [f"x{i % 40}" for i in range(80)]
    other = [f"x{i}" for i in range(36, 60)]
    found = matched(label_side, other)
    assert [row >= 0 for row in found] == [i % 40 >= 36 for i in range(80)]
    assert all(other[row] == label_side[i] for i, row in enumerate(found) if row >= 0)


def test_a_party_with_nothing_matches_nothing() -> None:
    assert matched(["a", "b"], []) == [-1, -1]
    assert matched(["", ""], ["a"]) == [-1, -1]


def test_another_pair_has_other_points() -> None:
    own, theirs = hide_distinct(["a"], "a|b"), hide(["a"], "a|c")
    assert match(own, theirs.points, double(own.blinded.points, theirs, most=MOST), most=MOST).tolist() == [-1]


def test_points_are_fresh_and_in_random_order() -> None:
    identities = [f"entity {i}" for i in range(50)]
    one, other = hide(identities, "p"), hide(identities, "p")
    assert not set(points_in(one.points)) & set(points_in(other.points))
    assert one.rows.tolist() != other.rows.tolist() != sorted(other.rows.tolist())


GOOD = blinded(["a", "b"], bytes([5, *bytes(31)]), "p")
NOT_CANONICAL = (2**255 - 19 + 2).to_bytes(32, "little")  # the field element 2, not reduced
SMALL_ORDER = (1).to_bytes(32, "little")  # of edwards25519, where it has order 4; no point of this group


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (GOOD[:-1], "wrong length"),
        (GOOD + GOOD[:32], "replayed"),
        (GOOD + NEUTRAL, "identity element"),
        (GOOD + b"\xff" * 32, "no point"),
        (GOOD + NOT_CANONICAL, "no point"),
        (GOOD + SMALL_ORDER, "no point"),
    ],
    ids=["cut off", "twice", "neutral", "no number", "not canonical", "small order"],
)
def test_odd_points_are_refused_by_name(content: bytes, kind: str) -> None:
    check_points(GOOD, most=MOST)
    with pytest.raises(PartyError, match=f"^{kind}: ") as raised:
        check_points(content, most=MOST)
    assert raised.value.kind == kind


def test_points_that_differ_in_a_few_bits_are_others() -> None:
    """Equal in three of their four words, and in the last one alone."""
    one, other = bytes(range(32)), bytes([*range(31), 0])
    third = bytes([9, *range(1, 32)])
    assert first_equal(one + other + third + one + other).tolist() == [0, 1, 2, 0, 1]
    assert first_equal(b"").tolist() == []


def test_too_many_own_or_missing_points_are_refused() -> None:
    with pytest.raises(PartyError, match="max-identities"):
        check_points(GOOD, most=1)
    with pytest.raises(PartyError, match="replayed"):
        check_points(GOOD, most=MOST, seen=GOOD[32:])
    own, theirs = hide_distinct(["a", "b"], "p"), hide(["a", "c"], "p")
    doubled = double(own.blinded.points, theirs, most=MOST)
    with pytest.raises(PartyError, match="wrong length"):
        match(own, theirs.points, doubled[:32], most=MOST)
    with pytest.raises(PartyError, match="replayed"):  # the other party's own points in place of the doubled ones
        match(own, theirs.points, theirs.points, most=MOST)


@pytest.mark.parametrize(
    ("text", "rule", "expected"),
    [
        (" N12345\u00a0", "clean", "N12345"),
        ("e\u0301", "clean", "é"),
        ("ＡＢＣ", "casefold", "abc"),  # noqa: RUF001
        ("Straße", "casefold", "strasse"),
        ("n-123 45/a", "alphanumeric", "n12345a"),
        ("--", "alphanumeric", ""),
    ],
)
def test_normalisation(text: str, rule: str, expected: str) -> None:
    assert normalise(text, rule) == expected


@given(st.lists(st.text(max_size=4), min_size=2, max_size=3), st.lists(st.text(max_size=4), min_size=2, max_size=3))
def test_identities_of_several_columns_do_not_run_together(one: list[str], other: list[str]) -> None:
    first, second = ([normalise(cell, "clean") for cell in cells] for cells in (one, other))
    whole = all(first) and all(second)
    assert (joined(one, "clean") == joined(other, "clean")) == (first == second if whole else all(first) == all(second))
    assert (joined(one, "clean") == "") == (not all(first))


def test_duplicates_are_named_by_row() -> None:
    check_unique(["a", "", "b", ""], "party x")
    with pytest.raises(DataError, match=r"party x: rows 2 and 4 have the same identity 'b'"):
        check_unique(["a", "b", "", "b"], "party x")


def test_forms_that_anyone_can_try_are_known() -> None:
    numbers = np.random.default_rng(0)
    assert is_enumerable([str(n) for n in range(1000)])
    assert is_enumerable([f"2013-{m:02d}-{d:02d}" for m in range(1, 13) for d in range(1, 29)])
    assert not is_enumerable([numbers.bytes(16).hex() for _ in range(100)])
    assert not is_enumerable([])
