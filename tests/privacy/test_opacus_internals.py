"""What is taken from inside of Opacus is there, does what DP-SGD here needs of it, and costs nobody else its import."""

import inspect
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedapp.common.seeding import seeded
from fedapp.privacy import opacus_internals
from fedapp.privacy.noise import Noise, make_noise
from fedapp.privacy.opacus_internals import (
    ATTRIBUTES,
    clipped_sums,
    epsilon_of,
    private_optimizer,
    validation_errors,
    wrapped,
)

ROOT = Path(__file__).parents[2]
MODES = ("hooks", "functorch", "ew", "ghost")
CLIP = 2.0
NAMES = {
    "opacus.accountants": ("create_accountant",),
    "opacus.accountants.analysis.rdp": ("_compute_rdp", "compute_rdp"),
    "opacus.grad_sample": ("wrap_model",),
    "opacus.optimizers": ("DPOptimizer", "DPOptimizerFastGradientClipping"),
    "opacus.utils.fast_gradient_clipping_utils": ("DPTensorFastGradientClipping",),
    "opacus.validators": ("ModuleValidator",),
}


@pytest.mark.parametrize("module", NAMES)
def test_opacus_has_the_names(module: str) -> None:
    found = import_module(module)
    gone = [name for name in NAMES[module] if not hasattr(found, name)]
    assert not gone, f"opacus {version('opacus')}: {module} has no {gone}, which privacy/opacus_internals.py uses"


@pytest.mark.parametrize("kind", [opacus_internals._PerExample, opacus_internals._Ghost])
def test_opacuss_optimizers_add_noise_by_the_method_that_is_replaced(kind: Any) -> None:
    """If Opacus added noise elsewhere as well, or under another name, its own generator would be drawn from."""
    opacuss = kind.__mro__[2]
    assert "self.add_noise()" in inspect.getsource(opacuss.pre_step), f"{opacuss.__name__} adds noise in another way"
    assert kind.add_noise is opacus_internals._OwnNoise.add_noise
    assert {"noise_multiplier", "max_grad_norm", "expected_batch_size", "loss_reduction"} <= (
        inspect.signature(opacuss.__init__).parameters.keys()
    )


def model_and_batch() -> tuple[nn.Module, Tensor, Tensor]:
    with seeded(0, "model"):
        model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))
        return model, torch.randn(8, 6) * torch.logspace(-2, 2, 8)[:, None], torch.randn(8)


def losses(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    return (model(inputs).squeeze(1) - targets) ** 2


@pytest.mark.parametrize("mode", MODES)
def test_sums_are_those_of_gradients_clipped_one_by_one(mode: str) -> None:
    """Against torch.autograd, one example at a time; some gradients are clipped, and some are not."""
    model, inputs, targets = model_and_batch()
    parameters = list(model.parameters())
    expected = [torch.zeros_like(parameter) for parameter in parameters]
    norms = []
    for i in range(len(inputs)):
        gradients = torch.autograd.grad(losses(model, inputs[i : i + 1], targets[i : i + 1]).sum(), parameters)
        norms.append(float(torch.cat([gradient.flatten() for gradient in gradients]).norm()))
        for total, gradient in zip(expected, gradients, strict=True):
            total += gradient * min(1.0, CLIP / norms[-1])
    assert min(norms) < CLIP < max(norms)
    noise = make_noise("seeded_for_tests", 1)
    with wrapped(model, mode=mode, max_grad_norm=CLIP) as hooked:
        optimizer = private_optimizer(
            torch.optim.SGD(parameters, lr=1.0), noise, mode=mode, noise_multiplier=0.0, max_grad_norm=CLIP
        )
        found = clipped_sums(hooked, optimizer, losses(hooked, inputs, targets), mode=mode)
    for total, gradient in zip(expected, found, strict=True):
        assert torch.allclose(total, gradient, rtol=1e-4, atol=1e-5)


class Ones(Noise):
    """Notes which standard deviations it is asked for, and gives them."""

    def __init__(self) -> None:
        super().__init__(0)
        self.asked: list[float] = []

    def normal(self, shape: torch.Size, std: float) -> Tensor:
        self.asked.append(std)
        return torch.full(shape, std, dtype=torch.float64)


@pytest.mark.parametrize("mode", MODES)
def test_noise_comes_from_its_source_with_sigma_times_c(mode: str) -> None:
    model, _, _ = model_and_batch()
    noise, parameters = Ones(), list(model.parameters())
    optimizer = private_optimizer(
        torch.optim.SGD(parameters, lr=1.0), noise, mode=mode, noise_multiplier=3.0, max_grad_norm=CLIP
    )
    assert list(optimizer.params) == parameters
    for parameter in parameters:
        parameter.summed_grad = torch.ones_like(parameter)
    optimizer.add_noise()
    assert noise.asked == len(parameters) * [3.0 * CLIP]
    assert all(bool((parameter.grad == 1 + 3.0 * CLIP).all()) for parameter in parameters)


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_left_on_the_model_even_after_an_error(mode: str) -> None:
    model, inputs, targets = model_and_batch()

    def stop_between_the_passes() -> None:
        with wrapped(model, mode=mode, max_grad_norm=CLIP) as hooked:
            losses(hooked, inputs, targets).sum().backward()
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        stop_between_the_passes()
    assert not any(layer._forward_hooks or layer._backward_hooks for layer in model.modules())
    for parameter in model.parameters():
        assert parameter.grad is None
        assert not any(hasattr(parameter, name) for name in ATTRIBUTES)


def test_a_model_that_mixes_examples_is_found_and_left_as_it_was() -> None:
    assert validation_errors(model_and_batch()[0]) == []
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5)).eval()
    assert "BatchNorm" in validation_errors(model)[0]
    assert not model.training


def test_steps_at_one_rate_are_computed_once() -> None:
    """The accountant asks `rdp._compute_rdp` by its name in the module, where the one with a cache is."""
    cost = import_module("opacus.accountants.analysis.rdp")._compute_rdp
    cost.cache_clear()
    first = epsilon_of([(1.1, 0.01, 100)], 1e-5, "rdp")
    computed = cost.cache_info().misses
    second = epsilon_of([(1.1, 0.01, 200)], 1e-5, "rdp")
    assert 0 < first < second
    assert cost.cache_info().misses == computed > 0
    assert cost.cache_info().hits >= computed


@pytest.mark.parametrize("module", ["accounting", "budget", "ledger", "limits", "noise", "pinned"])
def test_opacus_is_not_imported_before_it_is_needed(module: str) -> None:
    code = f"import sys, fedapp.privacy.{module}; print('opacus' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout == "False\n", done.stderr
