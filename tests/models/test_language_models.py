"""Models of the next token: each place sees what comes before it alone; ties, sizes and refusals."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from fedapp.common.errors import ConfigError
from fedapp.common.seeding import seeded
from fedapp.data.source import Schema
from fedapp.data.text.vocabulary import Words
from fedapp.models.lstm import lstm
from fedapp.models.personal import PersonalHead
from fedapp.models.shared_state import aliases, shared_state
from fedapp.models.transformer_lm import transformer_lm

WORDS = Words(size=20)
SCHEMA = Schema((6,), vocabulary=len(WORDS), text=WORDS)


def an_lstm(*, tied: bool = True, layers: int = 2) -> nn.Module:
    return lstm(SCHEMA, embedding=8, hidden=12, layers=layers, dropout=0.0, tied=tied)


def a_transformer(*, tied: bool = True) -> nn.Module:
    return transformer_lm(SCHEMA, width=8, heads=2, layers=2, dropout=0.0, tied=tied)


MODELS = {"lstm": an_lstm, "transformer_lm": a_transformer}
each = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)


@each
@pytest.mark.parametrize("tied", [True, False])
def test_a_place_depends_on_what_comes_before_it_alone(make: Callable[..., nn.Module], tied: bool) -> None:
    with seeded(0, "model"):
        model = make(tied=tied).eval()
    first = torch.randint(len(WORDS), (3, 6), generator=torch.Generator().manual_seed(0))
    second = first.clone()
    second[:, 4:] = (second[:, 4:] + 1) % len(WORDS)
    one, other = model(first), model(second)
    assert one.shape == (3, 6, len(WORDS))
    assert torch.allclose(one[:, :4], other[:, :4], atol=1e-6)
    assert not torch.allclose(one[:, 4:], other[:, 4:], atol=1e-4)
    early = first.clone()
    early[:, 0] = (early[:, 0] + 1) % len(WORDS)
    assert not torch.allclose(model(early)[:, 5], one[:, 5], atol=1e-6)


@each
def test_tied_layers_are_one_tensor_that_travels_once(make: Callable[..., nn.Module]) -> None:
    tied, apart = make(tied=True), make(tied=False)
    assert aliases(tied) == {"head.logits.weight"}
    assert not aliases(apart)
    assert shared_state(apart).keys() - shared_state(tied).keys() == {"head.logits.weight"}
    saved = sum(p.numel() for p in apart.parameters()) - sum(p.numel() for p in tied.parameters())
    inner = 8 if make is a_transformer else 12
    projected = 0 if make is a_transformer else 12 * 8 + 8
    assert saved == len(WORDS) * inner - projected


@each
def test_a_tied_head_cannot_be_personal(make: Callable[..., nn.Module]) -> None:
    """It is the embedding, too, which is federated."""
    with pytest.raises(ConfigError, match=r"model[.]tied=false"):
        PersonalHead().mark(make(tied=True))
    PersonalHead().mark(make(tied=False))


@each
def test_one_token_ahead_is_learnt(make: Callable[..., nn.Module]) -> None:
    with seeded(0, "model"):
        model = make()
    tokens = torch.arange(60).reshape(10, 6) % (len(WORDS) - 4) + 4
    targets = (tokens - 3) % (len(WORDS) - 4) + 4
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.1


@pytest.mark.parametrize("name", MODELS)
def test_data_that_is_no_text_is_refused(name: str) -> None:
    options = {"layers": 1, "dropout": 0.0, "tied": True}
    make = {
        "lstm": lambda schema: lstm(schema, embedding=4, hidden=4, **options),  # type: ignore[arg-type]
        "transformer_lm": lambda schema: transformer_lm(schema, width=4, heads=1, **options),
    }[name]  # type: ignore[arg-type]
    for schema in (Schema((1, 8, 8), ("a", "b")), Schema((6,), ("a", "b"), vocabulary=9)):
        with pytest.raises(ConfigError, match=f"model={name}: predicts the next token"):
            make(schema)


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model[.]hidden"):
        lstm(SCHEMA, embedding=4, hidden=0, layers=1, dropout=0.0, tied=True)
    with pytest.raises(ConfigError, match=r"model[.]dropout=1"):
        lstm(SCHEMA, embedding=4, hidden=4, layers=1, dropout=1, tied=True)
    with pytest.raises(ConfigError, match="must be a multiple of the heads"):
        transformer_lm(SCHEMA, width=6, heads=4, layers=1, dropout=0.0, tied=True)
    with pytest.raises(ConfigError, match=r"model[.]dropout"):
        transformer_lm(SCHEMA, width=8, heads=4, layers=1, dropout=-1, tied=True)
