"""No example's clipped gradient is larger than C, whatever model, scale and mode a server chooses.

The sum is measured in float64. Each model here has one client's example as its batch, so that the sum is one example's.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedapp.common.seeding import seeded
from fedapp.data.source import Examples
from fedapp.privacy.clipping import MOST_ROWS, OuterProducts, PerExample, clipped_sums
from fedapp.privacy.dp_training import PrivateTraining
from fedapp.privacy.noise import make_noise
from fedapp.privacy.opacus_internals import GHOST_VALUES, rows_in_memory

MODES = ("hooks", "functorch", "ew", "ghost")


class Noted(torch.optim.SGD):
    """Notes the gradients that it is given, and moves nothing."""

    seen: list[Tensor]

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, lr=1.0)
        Noted.seen = []

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            Noted.seen += [parameter.grad.clone() for parameter in group["params"]]


def summed(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss whose gradient is `targets` (B, outputs), so that a test chooses it."""
    return (outputs.flatten(1) * targets).sum(1)


def norm_of_sum(model: nn.Module, inputs: Tensor, targets: Tensor, *, mode: str, c: float) -> float:
    """In float64, of the sum of clipped gradients over all examples."""
    training = PrivateTraining(
        loss=summed,
        optimizer=Noted,
        noise=lambda: make_noise("seeded_for_tests", 1),
        noise_multiplier=0.0,
        max_grad_norm=c,
        sample_rate=1.0,
        steps=1,
        batch_size=64,
        public_count=lambda count: 1,
        mode=mode,
    )
    training(model, Examples(inputs, targets), seed=())
    return float(torch.cat([part.double().flatten() for part in Noted.seen]).norm())


def scaled(layer: nn.Module, exponent: float) -> nn.Module:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(10.0**exponent)
    return layer


class Tied(nn.Module):
    """One weight in two layers, and one layer used twice."""

    def __init__(self, first: float, second: float) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.Linear(4, 4), nn.Linear(4, 4, bias=False), nn.Linear(4, 2)
        scaled(self.one, first)
        scaled(self.out, second)
        self.two.weight = self.one.weight

    def forward(self, inputs: Tensor) -> Tensor:
        return self.out(self.one(self.two(self.one(inputs.flatten(1)))))


class Positions(nn.Module):
    """Linear layers on five positions, whose gradients are sums over these."""

    def __init__(self, first: float, second: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(scaled(nn.Linear(3, 6), first), nn.ReLU(), scaled(nn.Linear(6, 2), second))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs.view(-1, 5, 3)).sum(1)


def mlp(first: float, second: float) -> nn.Module:
    return nn.Sequential(nn.Flatten(), scaled(nn.Linear(9, 2000), first), nn.ReLU(), scaled(nn.Linear(2000, 2), second))


def convolutions(first: float, second: float) -> nn.Module:
    return nn.Sequential(
        scaled(nn.Conv2d(1, 4, 3, padding=1), first), nn.ReLU(), nn.Flatten(), scaled(nn.Linear(36, 2), second)
    )


def normalised(first: float, second: float) -> nn.Module:
    return nn.Sequential(nn.Flatten(), scaled(nn.Linear(9, 8), first), nn.LayerNorm(8), scaled(nn.Linear(8, 2), second))


MODELS: dict[str, tuple[Callable[[float, float], nn.Module], tuple[int, ...]]] = {
    "mlp": (mlp, (1, 3, 3)),
    "convolutions": (convolutions, (1, 3, 3)),
    "normalised": (normalised, (1, 3, 3)),
    "positions": (Positions, (15,)),
    "tied": (Tied, (4,)),
}
EXPONENTS = st.integers(-30, 20)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(MODELS)),
    exponents=st.tuples(EXPONENTS, EXPONENTS, EXPONENTS, EXPONENTS),
    c=st.sampled_from([0.01, 1.0, 1e6]),
)
def test_at_no_scale_is_a_clipped_gradient_larger_than_c(
    mode: str, kind: str, exponents: tuple[int, int, int, int], c: float
) -> None:
    make, shape = MODELS[kind]
    first, second, size, gradient = exponents
    with seeded(0, "model"):
        model = make(first, second)
        inputs, targets = torch.randn(1, *shape) * 10.0**size, torch.randn(1, 2) * 10.0**gradient
    assert norm_of_sum(model, inputs, targets, mode=mode, c=c) <= c


@pytest.mark.parametrize("mode", MODES)
def test_large_activations_times_gradients_whose_squares_vanish(mode: str) -> None:
    """1-1-40000-2: 7.5 * C with norms that multiply squares in float32."""
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 40_000, bias=False), nn.Linear(40_000, 2, bias=False))
    with torch.no_grad():
        for layer, value in zip(model, (1.0, 1.5e19, 0.0), strict=True):
            for parameter in layer.parameters():
                parameter.fill_(value if parameter.dim() > 1 else 0.0)
    found = norm_of_sum(model, torch.ones(1, 1), torch.full((1, 2), 2.5e-23), mode=mode, c=0.01)
    assert 0.0099 < found <= 0.01


@pytest.mark.parametrize("mode", MODES)
def test_positions_whose_gradients_almost_cancel(mode: str) -> None:
    """The sum over positions is 1, its parts are 1e5: products of Gram matrices have no digit of it."""
    model = nn.Sequential(nn.Linear(64, 1))
    with seeded(0, "positions"):
        large = 1e5 * torch.randn(64)
    inputs = torch.stack([large, -large + torch.ones(64) / 8])[None]
    found = norm_of_sum(model, inputs, torch.ones(1, 2), mode=mode, c=0.01)
    assert 0.0099 < found <= 0.01


@pytest.mark.parametrize("mode", MODES)
def test_a_gradient_that_cancels_in_a_convolution(mode: str) -> None:
    model = nn.Sequential(nn.Conv1d(8, 1, 1), nn.Flatten())
    with seeded(0, "convolution"):
        large = 1e5 * torch.randn(8)
    inputs = torch.stack([large, -large + 1.0], 1)[None]
    assert norm_of_sum(model, inputs, torch.ones(1, 2), mode=mode, c=0.01) <= 0.01


@pytest.mark.parametrize("mode", MODES)
def test_a_gradient_that_cancels_only_while_it_is_not_scaled(mode: str) -> None:
    """The hidden gradient is 2^50 * (3 * 5 - 5 * 3) = 0. With a loss scaled by a clipping factor c, 3 * c and 5 * c are
    rounded, and a second backward pass finds 1e5 where the first one measured nothing."""
    model = nn.Sequential(nn.Linear(3, 1), nn.Linear(1, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[-5 * 2.0**50], [3 * 2.0**50]]))
    for seed in range(5):
        with seeded(seed, "inputs"):
            inputs = 1e-15 * torch.randn(1, 3)
        assert norm_of_sum(model, inputs, torch.tensor([[3.0, 5.0]]), mode=mode, c=0.01) <= 0.01


def gradients(rows: int, exponent: int) -> list[PerExample]:
    with seeded(rows, exponent):
        factors = OuterProducts(torch.randn(rows, 30) * 10.0**exponent, torch.randn(rows, 70) * 10.0**-exponent)
        return [torch.randn(rows, 3, 700), factors, torch.randn(rows, 1500)]


def exactly(parts: list[PerExample], row: int) -> Tensor:
    whole = [
        torch.outer(part.left[row].double(), part.right[row].double())
        if isinstance(part, OuterProducts)
        else part[row].double()
        for part in parts
    ]
    return torch.cat([part.flatten() for part in whole])


def flat(parts: list[Tensor]) -> Tensor:
    assert all(part.dtype == torch.float64 for part in parts)
    return torch.cat([part.flatten() for part in parts])


def without(parts: list[PerExample], row: int) -> list[PerExample]:
    keep = torch.arange(len(parts[0])) != row
    return [
        OuterProducts(part.left[keep], part.right[keep]) if isinstance(part, OuterProducts) else part[keep]
        for part in parts
    ]


@pytest.mark.parametrize("rows", [1, 2, 17, MOST_ROWS])
@pytest.mark.parametrize("exponent", [0, 15, -15, 30])
def test_one_example_changes_the_sum_by_c_at_most(rows: int, exponent: int) -> None:
    parts = gradients(rows, exponent)
    for c in (0.01, 1e6):
        total = flat(clipped_sums(parts, c))
        for row in range(0, rows, 7):
            others = flat(clipped_sums(without(parts, row), c)) if rows > 1 else torch.zeros_like(total)
            assert float((total - others).norm()) <= c
        expected = sum(
            (one * min(1.0, c * 0.998 / float(one.norm())) for one in (exactly(parts, row) for row in range(rows))),
            torch.zeros_like(total),
        )
        assert torch.allclose(total, expected, rtol=0, atol=min(1e-5 * c, 1e-3))


@pytest.mark.parametrize("value", [1e19, 3e38, math.inf, math.nan])
def test_a_row_that_is_not_safely_finite_is_scaled_alone_or_counts_as_zero(value: float) -> None:
    for place in range(4):
        parts = gradients(5, 0)
        target = [parts[0], parts[1].left, parts[1].right, parts[2]][place]  # type: ignore[union-attr]
        target.view(5, -1)[3, 2] = value  # type: ignore[union-attr]
        others, total = flat(clipped_sums(without(parts, 3), 0.01)), flat(clipped_sums(parts, 0.01))
        own = 0.00998 if math.isfinite(value) else 0.0
        assert float((total - others).norm()) == pytest.approx(own, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("tiny", [1e-45, 1e-40, 1e-38])
def test_factors_too_small_for_float32_are_not_rounded_up(tiny: float) -> None:
    """Half of the smallest number rounds to itself, and the clipping factor would be lost."""
    parts: list[PerExample] = [OuterProducts(torch.full((1, 300), tiny), torch.full((1, 300), 1e38))]
    size = 300 * float(torch.tensor(tiny)) * 1e38
    assert float(flat(clipped_sums(parts, size / 1.9)).norm()) <= size / 1.9


def test_the_norm_of_very_many_small_values_beside_a_large_one_is_right() -> None:
    """Added one by one in float32 the small ones would all be lost."""
    values = torch.full((1, 4_000_001), 2e-4)
    values[0, 0] = 1.0
    assert float(flat(clipped_sums([values], 0.5)).norm()) == pytest.approx(0.499, rel=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_tied_parameters_are_clipped_as_one(mode: str) -> None:
    """Against torch.autograd, which knows of both uses."""
    with seeded(0, "tied"):
        model, inputs, targets = Tied(0.0, 0.0), torch.randn(3, 4), torch.randn(3, 2)
    parameters, c = list(model.parameters()), 0.5
    expected = torch.zeros(sum(parameter.numel() for parameter in parameters))
    for row in range(3):
        loss = summed(model(inputs[row : row + 1]), targets[row : row + 1]).sum()
        one = torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])
        expected += one * min(1.0, c / float(one.norm()))
    found = norm_of_sum(model, inputs, targets, mode=mode, c=c)
    assert found == pytest.approx(float(expected.norm()), rel=3e-3)


def test_ghost_clipping_bounds_how_many_gradients_of_convolutions_it_holds() -> None:
    """Linear layers' are never made; 5e6 parameters of a convolution are, and 13 examples' fill 256 MB."""
    with torch.device("meta"):
        linear, convolution = nn.Linear(5000, 5000), nn.Conv2d(1000, 1250, (1, 4))
    assert rows_in_memory(linear, mode="ghost") == GHOST_VALUES
    assert rows_in_memory(nn.Sequential(convolution, linear), mode="ghost") == 13
    assert rows_in_memory(convolution, mode="ew") > 1e9
