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
from fedapp.privacy.clipping import clipped_sums
from fedapp.privacy.opacus_internals import (
    ATTRIBUTES,
    MODULE_ATTRIBUTES,
    epsilon_of,
    per_example_gradients,
    validation_errors,
    wrapped,
)

ROOT = Path(__file__).parents[2]
MODES = ("hooks", "functorch", "ew", "ghost")
CLIP = 2.0
NAMES = {
    "opacus.accountants": ("create_accountant",),
    "opacus.accountants.analysis.rdp": ("_compute_rdp", "compute_rdp"),
    "opacus.grad_sample": ("GradSampleModule", "wrap_model"),
    "opacus.validators": ("ModuleValidator",),
}


@pytest.mark.parametrize("module", NAMES)
def test_opacus_has_the_names(module: str) -> None:
    found = import_module(module)
    gone = [name for name in NAMES[module] if not hasattr(found, name)]
    assert not gone, f"opacus {version('opacus')}: {module} has no {gone}, which privacy/opacus_internals.py uses"


def test_opacuss_hooks_are_those_that_ghost_clipping_replaces() -> None:
    hooks = import_module("opacus.grad_sample").GradSampleModule
    names = [[*inspect.signature(hook).parameters] for hook in (hooks.capture_backprops_hook, hooks.validate)]
    assert names[0] == ["self", "module", "_forward_input", "forward_output", "loss_reduction", "batch_first"]
    source = inspect.getsource(hooks.capture_activations_hook)
    assert "p._forward_counter += 1" in source, "tied parameters would not be found"
    assert nn.Linear in hooks.GRAD_SAMPLERS


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
    with wrapped(model, mode=mode) as hooked:
        found = clipped_sums(per_example_gradients(parameters, losses(hooked, inputs, targets)), CLIP / 0.998)
    for total, gradient in zip(expected, found, strict=True):
        assert torch.allclose(total.double(), gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_left_on_the_model_even_after_an_error(mode: str) -> None:
    model, inputs, targets = model_and_batch()

    def stop(backward: bool) -> None:
        with wrapped(model, mode=mode) as hooked:
            found = losses(hooked, inputs, targets).sum()
            if backward:
                found.backward()
            raise RuntimeError("stopped")

    for backward in (True, False):
        with pytest.raises(RuntimeError, match="stopped"):
            stop(backward)
    assert not any(hasattr(layer, name) for layer in model.modules() for name in MODULE_ATTRIBUTES)
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


@pytest.mark.parametrize("alpha", [1.1, 1.9, 2.5, 7.3, 10.9])
def test_near_one_half_fractional_orders_are_bounded_by_whole_ones(alpha: float) -> None:
    """No less than Opacus's series, which takes minutes in all for much noise, and hardly more."""
    exact = opacus_internals._compute_rdp(0.5, 2.0, alpha)
    assert exact <= opacus_internals._rdp_of_step(0.5, 2.0, alpha) <= 2 * exact
    assert opacus_internals._rdp_of_step(0.3, 2.0, alpha) == opacus_internals._compute_rdp(0.3, 2.0, alpha)
    assert 0 < opacus_internals._rdp_of_step(0.5, 1e4, alpha) < 1e-7


@pytest.mark.slow
@pytest.mark.parametrize("module", ["accounting", "budget", "ledger", "limits", "noise", "pinned"])
def test_opacus_is_not_imported_before_it_is_needed(module: str) -> None:
    code = f"import sys, fedapp.privacy.{module}; print('opacus' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout == "False\n", done.stderr
