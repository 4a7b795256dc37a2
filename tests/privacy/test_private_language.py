"""DP-SGD on models of the next token: what holds for networks of pictures holds for an LSTM and a transformer."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedapp.common.seeding import seeded
from fedapp.data.source import Examples, Schema
from fedapp.data.text.vocabulary import PADDING, Words
from fedapp.learning.tasks.next_token import NextToken
from fedapp.models.lstm import lstm
from fedapp.models.transformer_lm import transformer_lm
from fedapp.privacy.clipping import OuterProducts
from fedapp.privacy.dp_training import PrivateTraining
from fedapp.privacy.noise import Noise, make_noise
from fedapp.privacy.opacus_internals import per_example_gradients, validation_errors, wrapped

MODES = ("hooks", "functorch", "ew", "ghost")
WORDS = Words(size=20)
SCHEMA = Schema((5,), vocabulary=len(WORDS), text=WORDS)
TASK = NextToken(SCHEMA)


def an_lstm(*, tied: bool = True) -> nn.Module:
    with seeded(0, "model"):
        return lstm(SCHEMA, embedding=5, hidden=7, layers=2, dropout=0.0, tied=tied)


def a_transformer(*, tied: bool = True) -> nn.Module:
    with seeded(0, "model"):
        return transformer_lm(SCHEMA, width=6, heads=2, layers=1, dropout=0.0, tied=tied)


MODELS: dict[str, Callable[..., nn.Module]] = {"lstm": an_lstm, "transformer_lm": a_transformer}
each = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
in_every_mode = pytest.mark.parametrize("mode", MODES)


@pytest.fixture(autouse=True)
def quiet() -> Any:
    with warnings.catch_warnings():  # torch.func warns of autocast on CPUs
        warnings.filterwarnings("ignore", message=".*Autocast", category=UserWarning)
        yield


def examples(count: int) -> Examples:
    """Some of them with padding at the end."""
    random = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, len(WORDS), (count, 6), generator=random)
    for row in range(0, count, 3):
        tokens[row, 3:] = PADDING
    return Examples(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())


def private(**options: Any) -> PrivateTraining:
    given: dict[str, Any] = {
        "loss": TASK.loss_per_example,
        "optimizer": lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9),
        "noise": lambda: make_noise("seeded_for_tests", 7),
        "noise_multiplier": 0.0,
        "max_grad_norm": 1e6,
        "sample_rate": 0.3,
        "steps": 3,
        "batch_size": 8,
        "public_count": lambda count: count,
    }
    return PrivateTraining(**{**given, **options})


@each
@in_every_mode
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_the_gradient_of_each_example_is_its_own(make: Callable[..., nn.Module], mode: str, tied: bool) -> None:
    data, model = examples(6), make(tied=tied)
    model.train()
    parameters = list(model.parameters())
    with wrapped(model, mode=mode) as hooked:
        found = per_example_gradients(parameters, TASK.loss_per_example(hooked(data.inputs), data.targets))
    for row in range(len(data)):
        one = data.take([row])
        alone = torch.autograd.grad(TASK.loss(model(one.inputs), one.targets), parameters)
        for gradients, expected in zip(found, alone, strict=True):
            assert not isinstance(gradients, OuterProducts)
            assert torch.allclose(gradients[row], expected, rtol=0, atol=1e-6)


@each
@in_every_mode
def test_without_clipping_and_noise_it_is_plain_training(make: Callable[..., nn.Module], mode: str) -> None:
    """Also of the LSTM, although DP-SGD trains it by another layer than plain training does."""
    data, samples = examples(30), list[Tensor]()

    class Watched(Noise):
        def poisson_sample(self, count: int, rate: float) -> Tensor:
            samples.append(super().poisson_sample(count, rate))
            return samples[-1]

    found, model = make(), make()
    private(mode=mode, noise=lambda: Watched(7))(found, data, seed=(0,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    assert len(samples) == 3
    for batch in samples:
        optimizer.zero_grad()
        losses = TASK.loss_per_example(model(data.inputs[batch]), data.targets[batch])
        (losses.sum() / (0.3 * 30)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    expected = model.state_dict()
    assert all(torch.allclose(value, expected[key], rtol=0, atol=1e-5) for key, value in found.state_dict().items())


@each
@in_every_mode
def test_no_example_counts_for_more_than_the_clipping_norm(make: Callable[..., nn.Module], mode: str) -> None:
    bound = 0.01
    sgd = lambda p: torch.optim.SGD(p, lr=1.0)  # noqa: E731
    training = private(mode=mode, max_grad_norm=bound, sample_rate=1.0, steps=1, optimizer=sgd)
    for row in range(3):
        start, model = make(), make()
        training(model, examples(3).take([row]), seed=(0,))
        pairs = zip(model.parameters(), start.parameters(), strict=True)
        norm = float(torch.cat([(a - b).detach().flatten() for a, b in pairs]).norm())
        assert 0.99 * bound <= norm <= bound


@each
def test_the_model_is_as_it_was_but_for_its_values(make: Callable[..., nn.Module]) -> None:
    model = make()
    names, layers = list(model.state_dict()), [type(module) for module in model.modules()]
    parameters = list(model.parameters())
    private(mode="ghost", noise_multiplier=1.0)(model, examples(20), seed=(0,))
    assert list(model.state_dict()) == names
    assert [type(module) for module in model.modules()] == layers
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert not any(layer._forward_hooks or layer._backward_hooks for layer in model.modules())
    assert all(not hasattr(p, "grad_sample") for p in model.parameters())


@each
def test_opacus_has_nothing_against_them(make: Callable[..., nn.Module]) -> None:
    assert validation_errors(make()) == []
    assert any(isinstance(module, nn.LSTM) for module in an_lstm().modules())


def test_an_lstm_that_opacus_cannot_imitate_stays_refused() -> None:
    model = nn.Sequential(nn.LSTM(4, 6, proj_size=2))
    assert any("LSTM" in error for error in validation_errors(model))
