"""Kneser-Ney in closed form on a text of eight words, and as a model of chances on any text."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedapp.compare.trigram import CUT, Trigram
from fedapp.data.source import Examples
from fedapp.data.text.token_windows import TokenWindows
from fedapp.data.text.vocabulary import BEGIN, END, PADDING, UNKNOWN, Words
from fedapp.learning.metrics.next_token import Perplexity, TokenTopK

WORDS = Words(size=6)
THE, OF, AND = WORDS.encode("the of and")


def examples(*lines: str, length: int = 8) -> Examples:
    gathered = TokenWindows(WORDS, length)
    gathered.add("", lines)
    return gathered.examples()


def test_golden_chances() -> None:
    """Lines "the of the of" and "the and". Triples, with the beginning (b) and the end (e): bb the 2; b the: of 1, and
    1; the of: the 1, e 1; of the: of 1; the and: e 1. Six of count 1, one of count 2: discount 6/8. Pairs by how many
    words come before them: b the 1; the of 2 (behind b and of), the and 1; of the 1, of e 1; and e 1: five of 1, one of
    2: discount 5/7. Single tokens by how many pairs end in them: the 2 (b, of), of 1, and 1, e 2 (of, and): two of 1,
    two of 2: discount 2/6."""
    found = Trigram(WORDS, examples("the of the of", "the and"))
    learnable = len(WORDS) - 2  # not padding, not unknown
    third, second, first = Fraction(6, 8), Fraction(5, 7), Fraction(2, 6)
    even = Fraction(1, learnable)

    def single(count: int) -> Fraction:
        return max(count - first, Fraction(0)) / 6 + first * 4 / 6 * even

    def after_the(count: int, token: int) -> Fraction:
        return max(count - second, Fraction(0)) / 3 + second * 2 / 3 * single(token)

    def after_begin_the(count: int, lower: Fraction) -> Fraction:
        return max(count - third, Fraction(0)) / 2 + third * 2 / 2 * lower

    chances = found.chances(BEGIN, THE)
    assert chances[OF] == pytest.approx(float(after_begin_the(1, after_the(2, 1))))
    assert chances[AND] == pytest.approx(float(after_begin_the(1, after_the(1, 1))))
    assert chances[END] == pytest.approx(float(after_begin_the(0, after_the(0, 2))))
    assert chances[THE] == pytest.approx(float(after_begin_the(0, after_the(0, 2))))
    unseen = WORDS.encode("to in was i o a")
    known = [token for token in unseen if token != UNKNOWN]
    assert chances[known[0]] == pytest.approx(float(after_begin_the(0, after_the(0, 0))))
    assert chances[PADDING] == chances[UNKNOWN] == 0.0


lines = st.lists(st.lists(st.sampled_from(["the", "of", "and", "a", "fnord"]), max_size=9).map(" ".join), min_size=1)


@settings(max_examples=50, deadline=None)
@given(lines, st.integers(0, len(WORDS) - 1), st.integers(0, len(WORDS) - 1))
def test_chances_sum_to_one_behind_any_two_tokens(drawn: list[str], first: int, second: int) -> None:
    chances = Trigram(WORDS, examples("the of and", *drawn, length=5)).chances(first, second)
    assert chances.sum() == pytest.approx(1.0)
    assert (chances >= 0).all()


def test_scores_are_those_of_its_chances() -> None:
    model, held = Trigram(WORDS, examples("the of the of", "the and")), examples("the of fnord and")
    scores = model.scores(held)
    assert scores.shape == (1, 8, 2)
    counted = scores[0, :, 1] >= 0
    assert counted.tolist() == [True, True, False, True, False, False, False, False]
    assert float(scores[0, 1, 0]) == pytest.approx(float(np.log(model.chances(BEGIN, THE)[OF])))
    assert [float(rank) for rank in scores[0, :2, 1]] == [0.0, 0.0]
    assert Perplexity("perplexity")(scores, held.targets) > 1
    assert 0 < TokenTopK("token_accuracy", k=1)(scores, held.targets) < 1


def test_what_was_learnt_is_foreseen() -> None:
    own = examples("the of and the of and the of and")
    scores = Trigram(WORDS, own).scores(own)
    assert TokenTopK("token_accuracy", k=1)(scores, own.targets) == 1.0
    assert torch.equal(Trigram(WORDS, own).scores(own), scores)


def test_a_window_that_goes_on_with_a_line_does_not_begin_one() -> None:
    """Windows of "the of and": b the, of and; the second opens behind a token that it does not hold."""
    model = Trigram(WORDS, examples("the of and", "the of and", length=2))
    behind_another = model.chances(AND, OF)  # nobody has seen that: what follows "of" alone
    assert model.chances(BEGIN, OF).tolist() == behind_another.tolist()
    held = examples("the of and", length=2)
    assert float(model.scores(held)[1, 0, 0]) == pytest.approx(float(np.log(model.chances(CUT, OF)[AND])))
    assert model.chances(CUT, OF)[AND] > behind_another[AND]
