"""DP-SGD: plain training where nothing is clipped and no noise added; norms, noise and samples as they must be."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own idiom)
from scipy import stats
from torch import Tensor, nn

from fedapp.common.seeding import seeded
from fedapp.data.source import Examples
from fedapp.privacy.dp_training import PrivateTraining
from fedapp.privacy.noise import Noise, make_noise

MODES = ("hooks", "functorch", "ew", "ghost")


def cnn() -> nn.Module:
    with seeded(0, "model"):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.0), nn.Linear(144, 3)
        )


def wide() -> nn.Module:
    with seeded(0, "model"):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 3))


def examples(count: int) -> Examples:
    random = torch.Generator().manual_seed(0)
    return Examples(torch.randn(count, 1, 8, 8, generator=random), torch.randint(0, 3, (count,), generator=random))


def per_example(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, reduction="none")


def private(**options: Any) -> PrivateTraining:
    settings: dict[str, Any] = {
        "loss": per_example,
        "optimizer": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
        "noise": lambda: make_noise("seeded_for_tests", 7),
        "noise_multiplier": 0.0,
        "max_grad_norm": 1e6,
        "sample_rate": 0.3,
        "steps": 4,
        "batch_size": 8,
        "public_count": lambda count: count,
    }
    return PrivateTraining(**{**settings, **options})


def trained(training: PrivateTraining, data: Examples, model: nn.Module | None = None) -> dict[str, Tensor]:
    model = model or cnn()
    training(model, data, seed=(0,))
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("mu", [0.0, 0.5])
def test_without_clipping_and_noise_it_is_plain_training(mode: str, mu: float) -> None:
    """The same Poisson batches by a plain torch.optim optimizer, gradient = sum over the batch / (q n)."""
    data, model, samples = examples(50), cnn(), list[Tensor]()

    class Watched(Noise):
        def poisson_sample(self, count: int, rate: float) -> Tensor:
            samples.append(super().poisson_sample(count, rate))
            return samples[-1]

    found = trained(private(mode=mode, proximal_mu=mu, noise=lambda: Watched(7)), data)
    start = [p.detach().clone() for p in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    assert len(samples) == 4
    for batch in samples:
        optimizer.zero_grad()
        (per_example(model(data.inputs[batch]), data.targets[batch]).sum() / (0.3 * 50)).backward()
        for parameter, origin in zip(model.parameters(), start, strict=True):
            assert parameter.grad is not None
            parameter.grad.add_(parameter.detach() - origin, alpha=mu)
        optimizer.step()
    for key, value in model.state_dict().items():
        assert torch.allclose(found[key], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_batches_bound_memory_and_change_nothing(mode: str) -> None:
    data = examples(60)
    whole = trained(private(mode=mode, batch_size=60, max_grad_norm=0.1, noise_multiplier=1.0), data)
    parts = trained(private(mode=mode, batch_size=7, max_grad_norm=0.1, noise_multiplier=1.0), data)
    assert all(torch.allclose(whole[key], parts[key], rtol=0, atol=1e-6) for key in whole)


@pytest.mark.parametrize("mode", MODES)
def test_no_example_counts_for_more_than_the_clipping_norm(mode: str) -> None:
    """With one example in every batch, the sum of clipped gradients is that example's clipped gradient."""
    bound = 0.05
    for number in range(5):
        one = examples(5)
        data = Examples(100 * one.inputs[number : number + 1], one.targets[number : number + 1])
        training = private(
            mode=mode,
            max_grad_norm=bound,
            sample_rate=1.0,
            steps=1,
            optimizer=lambda p: torch.optim.SGD(p, lr=1.0),
        )
        start = cnn().state_dict()
        moved = trained(training, data)
        norm = float(torch.cat([(moved[key] - start[key]).flatten() for key in start]).norm())
        assert norm <= bound
        assert norm >= bound * 0.99


@pytest.mark.parametrize("mode", ["functorch", "ew", "ghost"])
def test_all_modes_clip_alike(mode: str) -> None:
    data = examples(40)
    reference = trained(private(mode="hooks", max_grad_norm=0.2), data)
    found = trained(private(mode=mode, max_grad_norm=0.2), data)
    assert all(torch.allclose(found[key], reference[key], rtol=0, atol=1e-5) for key in reference)


@pytest.mark.parametrize("mode", MODES)
def test_an_empty_batch_is_noise_alone(mode: str) -> None:
    class Nobody(Noise):
        def poisson_sample(self, count: int, rate: float) -> Tensor:
            return torch.empty(0, dtype=torch.int64)

    settings = {"mode": mode, "max_grad_norm": 0.5, "noise_multiplier": 2.0, "optimizer": plain_sgd, "steps": 1}
    start, moved = wide().state_dict(), trained(private(noise=lambda: Nobody(3), **settings), examples(40), wide())
    values = torch.cat([((moved[key] - start[key]) * 0.3 * 40).flatten() for key in start]).numpy()
    # Standard deviation sigma * C = 1 of 20,403 values: this chi-square test is a false alarm once in a million, and
    # finds noise that is 3 % off.
    low, high = stats.chi2.ppf([5e-7, 1 - 5e-7], len(values))
    assert low < float((values**2).sum()) < high


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bad", [float("inf"), float("nan"), 1e30])
def test_an_example_that_overflows_tells_nothing(mode: str, bad: float) -> None:
    """A hostile model may overflow on the examples it looks for: the others' sum must stay what it is without them."""
    clean = examples(12)
    spoilt = Examples(clean.inputs.clone(), clean.targets)
    spoilt.inputs[5] = bad
    settings = {"mode": mode, "max_grad_norm": 0.5, "sample_rate": 1.0, "steps": 1, "optimizer": plain_sgd}
    settings |= {"public_count": lambda count: 12, "batch_size": 8}
    others = Examples(*(torch.cat([part[:5], part[6:]]) for part in (clean.inputs, clean.targets)))
    found, expected = trained(private(**settings), spoilt), trained(private(**settings), others)
    moved = torch.cat([(found[key] - expected[key]).flatten() for key in expected])
    assert torch.isfinite(moved).all()
    assert float(moved.norm()) * 12 <= 0.5  # what one clipped example may change, and no more


def plain_sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1.0)


def test_noise_is_gaussian_of_the_right_size_and_independent() -> None:
    """Each test has a false-alarm rate of 1e-6, stated by its bound."""
    first, second = make_noise("os_entropy"), make_noise("os_entropy")
    shape = torch.Size((200_000,))
    a, b, c = first.normal(shape, 3.0).numpy(), second.normal(shape, 3.0).numpy(), first.normal(shape, 3.0).numpy()
    for values in (a, b, c):
        assert stats.kstest(values / 3.0, "norm").pvalue > 1e-6
        low, high = stats.chi2.ppf([5e-7, 1 - 5e-7], len(values))
        assert low < float(((values / 3.0) ** 2).sum()) < high
    for one, other in ((a, b), (a, c), (a[1:], a[:-1])):
        assert abs(float(np.corrcoef(one, other)[0, 1])) < 4.9 / np.sqrt(len(one))  # 4.9 standard deviations: 1e-6


def test_noise_is_drawn_and_added_in_float64() -> None:
    assert make_noise("os_entropy").normal(torch.Size((3,)), 1.0).dtype == torch.float64

    class Tiny(Noise):
        def normal(self, shape: torch.Size, std: float) -> Tensor:
            return torch.full(shape, 1.0, dtype=torch.float64)

    class Large(Noise):
        def normal(self, shape: torch.Size, std: float) -> Tensor:
            return torch.full(shape, 2.0**60, dtype=torch.float64)

    settings: dict[str, Any] = {"noise_multiplier": 1.0, "steps": 1, "optimizer": plain_sgd, "sample_rate": 1.0}
    moved = {}
    for kind in (Tiny, Large):
        start = cnn().state_dict()
        after = trained(private(noise=lambda kind=kind: kind(0), **settings), examples(4))
        moved[kind] = {key: after[key] - start[key] for key in start}
    assert all(value.dtype == torch.float32 for value in moved[Tiny].values())
    assert all(bool((value == -(2.0**58)).all()) for value in moved[Large].values())  # noise / 4 examples


def test_poisson_samples_take_each_example_independently() -> None:
    noise = make_noise("os_entropy")
    taken = np.zeros((4000, 30))
    for row in taken:
        row[noise.poisson_sample(30, 0.2).numpy()] = 1
    assert np.abs(taken.mean(0) - 0.2).max() < 5.4 * np.sqrt(0.16 / 4000)  # 30 means, 1e-6 in all
    sizes = taken.sum(1)
    assert 0.8 < sizes.var() / (30 * 0.16) < 1.25  # Binomial(30, 0.2), and no fixed batch size


def test_two_runs_of_one_seed_differ_and_the_global_generator_does_not_matter() -> None:
    data = examples(40)
    settings = {"noise": lambda: make_noise("os_entropy"), "noise_multiplier": 1.0, "max_grad_norm": 1.0}
    torch.manual_seed(0)
    first = trained(private(**settings), data)
    torch.manual_seed(0)
    second = trained(private(**settings), data)
    assert not any(torch.equal(first[key], second[key]) for key in first)


def test_noise_comes_from_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own generators, which the public seed could set, are never drawn from."""

    def refuse(*_: Any, **__: Any) -> Tensor:
        raise AssertionError("noise from torch's generator")

    for name in ("normal", "randn", "randn_like", "rand", "bernoulli"):
        monkeypatch.setattr(torch, name, refuse)
    trained(private(noise_multiplier=1.0, max_grad_norm=1.0), Examples(torch.ones(20, 1, 8, 8), torch.zeros(20).long()))


def test_masks_of_dropout_are_as_secret_as_the_noise() -> None:
    """An example more moves those after it to other masks: where these are known, that is no bounded change."""
    seen: list[Tensor] = []

    class Watched(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            seen.append(inputs.detach().clone())
            return inputs

    def masks(noise: str) -> Tensor:
        seen.clear()
        model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), Watched(), nn.Linear(64, 3))
        data = Examples(torch.ones(20, 1, 8, 8), torch.zeros(20).long())
        private(noise=lambda: make_noise(noise, 1), sample_rate=1.0, batch_size=20, steps=1)(model, data, seed=(0,))
        return seen[0]

    assert not torch.equal(masks("os_entropy"), masks("os_entropy"))  # the same seed, and 1280 coins
    assert torch.equal(masks("seeded_for_tests"), masks("seeded_for_tests"))


@pytest.mark.parametrize("rounds", [1, 2])
def test_masks_do_not_hang_on_a_seed_of_32_bits(rounds: int) -> None:
    """Of any seed torch's generator for the CPU keeps the low 32 bits, which can be tried one by one. Two streams that
    agree in the first 32 bits drawn, or the first 64, give other masks, and each step others again."""

    class Same(np.random.Generator):
        def integers(self, *arguments: Any, **options: Any) -> Any:
            drawn = super().integers(*arguments, **options)
            drawn[:2] = 7
            return drawn

    def masks(key: int) -> list[Tensor]:
        noise = Noise(key)
        noise._random = Same(noise._random.bit_generator)
        found = []
        with noise.in_torch(torch.device("cpu")) as fill_masks:
            for _ in range(rounds):
                fill_masks()
                found.append(torch.empty(2000).bernoulli_(0.5))
        return found

    before = torch.get_rng_state()
    first, second = masks(1), masks(2)
    assert torch.equal(before, torch.get_rng_state())
    for i, j in [(a, b) for a in first + second for b in first + second if a is not b]:
        assert 0.38 < float((i == j).float().mean()) < 0.62  # 10 standard deviations
    assert all(torch.equal(a, b) for a, b in zip(first, masks(1), strict=True))


def test_all_that_draws_from_torch_draws_from_the_stream() -> None:
    """Not only nn.Dropout: stochastic depth, say, asks the generator itself."""
    seen: list[Tensor] = []

    class Chance(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            seen.append(torch.bernoulli(torch.full((64,), 0.5)))
            return inputs * seen[-1]

    model = nn.Sequential(nn.Flatten(), Chance(), nn.Linear(64, 3))
    for _ in range(2):
        torch.manual_seed(0)
        training = private(noise=lambda: make_noise("os_entropy"), sample_rate=1.0, batch_size=20, steps=2)
        training(model, examples(20), seed=(0,))
    assert len({tuple(mask.tolist()) for mask in seen}) == 4


def test_the_loss_is_not_known() -> None:
    assert private()(cnn(), examples(20), seed=(0,)).loss is None


@pytest.mark.parametrize("count", [1, 20, 60])
def test_the_number_of_steps_does_not_depend_on_the_data(count: int) -> None:
    assert private(steps=7)(cnn(), examples(count), seed=(0,)).steps == 7


def test_the_model_is_as_it_was_but_for_its_values() -> None:
    model = cnn()
    private(mode="ghost")(model, examples(20), seed=(0,))
    assert not any(layer._forward_hooks or layer._backward_hooks for layer in model.modules())
    assert all(not hasattr(p, "grad_sample") and not hasattr(p, "_norm_sample") for p in model.parameters())
