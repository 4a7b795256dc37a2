"""The task of the next token: what counts in loss and metrics, and what does not."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedapp.common.errors import ConfigError, DataError
from fedapp.data.source import Examples, Schema
from fedapp.data.text.vocabulary import BEGIN, END, PADDING, UNKNOWN, Words
from fedapp.learning.losses.next_token import TokenCrossEntropy
from fedapp.learning.metrics.next_token import Perplexity, TokenTopK
from fedapp.learning.tasks import next_token
from fedapp.learning.tasks.by_schema import by_schema
from fedapp.learning.tasks.next_token import NextToken

WORDS = Words(size=8)
TOKENS, LENGTH = len(WORDS), 5
SCHEMA = Schema((LENGTH,), vocabulary=TOKENS, text=WORDS)
TASK = NextToken(SCHEMA)


class Fixed(nn.Module):
    """Logits (B, T, tokens) that are looked up by the input: those of each row of a table."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits[x[:, 0]]


def judged(logits: Tensor, targets: Tensor) -> dict[str, float]:
    inputs = torch.arange(len(targets))[:, None].expand(-1, LENGTH).contiguous()
    found = TASK.evaluate(Fixed(logits), Examples(inputs, targets))
    assert found is not None
    return {"loss": found.loss, **found.metrics}


batches = st.integers(0, 2**31).flatmap(
    lambda seed: st.tuples(
        st.just(seed),
        st.lists(st.lists(st.integers(0, TOKENS - 1), min_size=LENGTH, max_size=LENGTH), min_size=1, max_size=6),
    )
)


@settings(max_examples=60, deadline=None)
@given(batches)
def test_padding_and_unknown_tokens_change_neither_loss_nor_metrics(drawn: tuple[int, list[list[int]]]) -> None:
    """Whatever the model says where there is nothing to be said."""
    seed, rows = drawn
    targets = torch.tensor(rows)
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(rows), LENGTH, TOKENS, generator=random)
    there = ((targets != PADDING) & (targets != UNKNOWN))[..., None]
    others = torch.where(there, logits, 1000 * torch.randn(logits.shape, generator=random))
    others = torch.where((targets == PADDING)[..., None].expand_as(logits), torch.finfo().max, others)
    for mean, per_example in ((TASK.loss, TASK.loss_per_example),):
        assert torch.equal(mean(logits, targets), mean(others, targets))
        assert torch.equal(per_example(logits, targets), per_example(others, targets))
    first, second = judged(logits, targets), judged(others.clamp(-1e30, 1e30), targets)
    assert all(first[name] == second[name] or math.isnan(first[name]) for name in first)


@settings(max_examples=60, deadline=None)
@given(batches, st.integers(1, 4))
def test_more_padding_changes_nothing(drawn: tuple[int, list[list[int]]], more: int) -> None:
    seed, rows = drawn
    targets = torch.tensor(rows)
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(rows), LENGTH, TOKENS, generator=random)
    longer = torch.cat([targets, torch.full((len(rows), more), PADDING)], 1)
    wide = torch.cat([logits, torch.randn(len(rows), more, TOKENS, generator=random)], 1)
    assert torch.allclose(TASK.loss_per_example(wide, longer), TASK.loss_per_example(logits, targets), atol=1e-6)
    found, expected = TASK.scores(wide, longer), TASK.scores(logits, targets)
    for metric in TASK.metrics.values():
        assert metric(found, longer) == pytest.approx(metric(expected, targets), nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(batches)
def test_losses_of_examples_sum_to_the_batchs(drawn: tuple[int, list[list[int]]]) -> None:
    seed, rows = drawn
    targets = torch.tensor(rows)
    logits = torch.randn(len(rows), LENGTH, TOKENS, generator=torch.Generator().manual_seed(seed))
    per_example = TASK.loss_per_example(logits, targets)
    assert per_example.shape == (len(rows),)
    assert float(per_example.sum()) == pytest.approx(len(rows) * float(TASK.loss(logits, targets)), rel=1e-5)
    alone = [TASK.loss(logits[i : i + 1], targets[i : i + 1]) for i in range(len(rows))]
    assert torch.allclose(per_example, torch.stack(alone), atol=1e-6)


def test_the_loss_is_the_mean_over_known_tokens() -> None:
    logits = torch.randn(2, LENGTH, TOKENS, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[5, UNKNOWN, 7, END, PADDING], [PADDING] * 5])
    chances = logits.log_softmax(2)
    expected = -(chances[0, 0, 5] + chances[0, 2, 7] + chances[0, 3, END]) / 3  # ends of lines are learnt
    assert torch.allclose(TASK.loss_per_example(logits, targets), torch.stack([expected, torch.tensor(0.0)]))


def test_ranks_are_among_words() -> None:
    """What no keyboard suggests takes no word's place."""
    logits = torch.zeros(1, LENGTH, TOKENS)
    logits[..., :4] = 9.0
    logits[..., 6] = 1.0
    found = judged(logits, torch.tensor([[6, 6, 6, 6, 5]]))
    assert found["token_accuracy"] == pytest.approx(4 / 5)
    assert found["perplexity"] > 1000


def test_metrics_count_words_alone() -> None:
    """Three words: one foreseen, one at second place, one last; the end of a line does not count, foreseen or not."""
    targets = torch.tensor([[5, 6, END, PADDING, PADDING], [7, UNKNOWN, END, PADDING, PADDING]])
    logits = torch.zeros(2, LENGTH, TOKENS)
    logits[0, 0, 5] = 3.0
    logits[0, 1, 7] = -1.0
    logits[0, 1, 6], logits[0, 1, 8] = 2.0, 3.0
    logits[1, 0, 7] = -1.0
    logits[0, 2, END], logits[1, 2, END] = 9.0, -9.0
    logits[1, 1, UNKNOWN] = 9.0
    found = judged(logits, targets)
    assert found["token_accuracy"] == pytest.approx(1 / 3)
    assert found["token_top_3"] == pytest.approx(2 / 3)
    chances = logits.log_softmax(2)
    own = [chances[0, 0, 5], chances[0, 1, 6], chances[1, 0, 7]]
    assert found["perplexity"] == pytest.approx(math.exp(-float(sum(own)) / 3))


def test_a_model_that_cannot_decide_has_not_foreseen_every_word() -> None:
    """Of equal logits the right one counts as the last."""
    targets = torch.tensor([[4, 5, 6, 7, 8]])
    found = judged(torch.zeros(1, LENGTH, TOKENS), targets)
    assert found["token_accuracy"] == found["token_top_3"] == 0.0
    assert found["perplexity"] == pytest.approx(TOKENS)


def test_chunks_of_evaluation_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    random = torch.Generator().manual_seed(1)
    logits, targets = (
        torch.randn(7, LENGTH, TOKENS, generator=random),
        torch.randint(TOKENS, (7, LENGTH), generator=random),
    )
    whole = judged(logits, targets)
    monkeypatch.setattr(next_token, "LOGITS", 2 * LENGTH * TOKENS)
    assert judged(logits, targets) == pytest.approx(whole)


def test_outputs_that_are_not_finite_have_no_metrics() -> None:
    found = judged(torch.full((1, LENGTH, TOKENS), math.nan), torch.tensor([[4, 5, 6, 7, 8]]))
    assert all(math.isnan(value) for value in found.values())


@pytest.mark.parametrize("metric", [TokenTopK("token_accuracy", k=1), TokenTopK("t", k=3), Perplexity("perplexity")])
def test_metrics_on_draws_are_those_of_what_was_drawn(metric: Any) -> None:
    random = torch.Generator().manual_seed(2)
    targets = torch.randint(TOKENS, (6, LENGTH), generator=random)
    scores = TASK.scores(torch.randn(6, LENGTH, TOKENS, generator=random), targets)
    counts = torch.randint(3, (4, 6), generator=random)
    for value, count in zip(metric.on_draws(scores, targets, counts).tolist(), counts, strict=True):
        rows = torch.repeat_interleave(torch.arange(6), count)
        assert value == pytest.approx(metric(scores[rows], targets[rows]))


def test_without_a_word_metrics_are_not_defined() -> None:
    targets = torch.tensor([[UNKNOWN, END, PADDING, PADDING, PADDING]])
    assert "without a token" in TASK.undefined("perplexity", targets)
    assert not TASK.undefined("perplexity", torch.tensor([[5, END, PADDING, PADDING, PADDING]]))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.zeros(2, LENGTH), "x: the tokens that follow are torch.float32, token indices must be int64"),
        (torch.zeros(2, 4).long(), r"x: the tokens that follow have shape \(4,\), \(5,\) is needed"),
        (torch.full((2, LENGTH), TOKENS), rf"x: a token that follows lies outside 0\.\.{TOKENS - 1}"),
    ],
    ids=["floats", "shape", "range"],
)
def test_targets_that_do_not_fit_are_refused(targets: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=f"^{message}"):
        TASK.check(Examples(torch.zeros(2, LENGTH).long(), targets), "x")


def test_the_kind_follows_from_the_data() -> None:
    assert isinstance(by_schema(SCHEMA), NextToken)
    assert by_schema(replace(SCHEMA, classes=("a", "b"))).kind == "classification"
    with pytest.raises(ConfigError, match="the data is no text"):
        NextToken(Schema((5,), classes=("a", "b"), vocabulary=9))


def test_the_vocabularys_own_indices_are_what_does_not_count() -> None:
    other = replace(WORDS, padding=6, unknown=7)
    task = NextToken(replace(SCHEMA, text=other))
    assert task.criterion == TokenCrossEntropy(uncounted=(6, 7))
    targets = torch.tensor([[5, 6, 7, 6, 7]])
    logits = torch.randn(1, LENGTH, TOKENS, generator=torch.Generator().manual_seed(0))
    assert float(task.loss(logits, targets)) == pytest.approx(-float(logits.log_softmax(2)[0, 0, 5]))


def test_suggestions_are_behind_the_last_token_and_no_special_ones() -> None:
    inputs = torch.tensor([[BEGIN, 5, 6, PADDING, PADDING]])
    chances = torch.zeros(1, LENGTH, TOKENS)
    chances[0, 2] = torch.linspace(0.5, 0.0, TOKENS)  # padding, unknown, begin and end come first
    told = TASK.told(inputs, chances)
    assert torch.equal(told, chances[:, 2])
    found = TASK.suggestions(told[0].tolist())
    assert [token for token, _ in found] == list(WORDS.tokens[4:7])
    assert TASK.row(told[0].tolist())[0] == WORDS.tokens[4]
    assert len(TASK.row(told[0].tolist())) == len(TASK.columns) == 6
