"""Everything that fedapp takes from inside of Opacus. Written for opacus 1.6; importing this module takes 2 s.

Needs of it: `wrap_model` and, of the wrapped model, `to_standard_module`; `GradSampleModule` with its two hooks,
`GRAD_SAMPLERS` and `rearrange_grad_samples`; the names of the parameters of `DPLSTM` and its cells; what its modes
leave in each parameter's `grad_sample`; `ModuleValidator`; accountants whose `history` can be set;
`PRVAccountant._get_domain` and the functions that its `get_epsilon` calls; `rdp._compute_rdp`.
tests/privacy/test_opacus_internals.py checks these against the installed version.
"""

import math
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from opacus.accountants import create_accountant
from opacus.accountants.analysis import rdp
from opacus.accountants.analysis.prv import (
    PoissonSubsampledGaussianPRV,
    TruncatedPrivacyRandomVariable,
    compose_heterogeneous,
    discretize,
)
from opacus.grad_sample import GradSampleModule, wrap_model
from opacus.layers import DPLSTM
from opacus.validators import ModuleValidator
from torch import Tensor, nn

from fedapp.privacy.clipping import OuterProducts, PerExample

__all__ = [
    "epsilon_of",
    "per_example_gradients",
    "private_layers",
    "prv_points",
    "rows_in_memory",
    "validation_errors",
    "wrapped",
]

# What Opacus leaves on parameters and, after an error, on modules.
ATTRIBUTES = ("grad_sample", "summed_grad", "_current_grad_sample", "_forward_counter")
MODULE_ATTRIBUTES = ("activations", "max_batch_len")
GHOST_VALUES = 1 << 26
PRV_DELTA = 1000  # Opacus's: so small a part of delta is PRV's own error

_compute_rdp = rdp._compute_rdp


# Accountants ask for it again for every epsilon, which took 45 of 55 ms for each client and round.
@lru_cache(maxsize=65_536)
def _rdp_of_step(q: float, noise_multiplier: float, alpha: float) -> float:
    """The cost of one step at one RDP order.

    Near q = 1/2 Opacus's series for fractional orders hardly converge: minutes for a noise multiplier of 1e4. As
    (alpha - 1) RDP(alpha) is convex (van Erven and Harremoes 2014), the line between the whole orders beside alpha
    bounds it.
    """
    low = math.floor(alpha)
    if not 0.4 < q < 0.6 or alpha == low:
        return float(_compute_rdp(q, noise_multiplier, alpha))
    below = (low - 1) * _rdp_of_step(q, noise_multiplier, low) if low > 1 else 0.0
    above = low * _rdp_of_step(q, noise_multiplier, low + 1)
    return (below + (alpha - low) * (above - below)) / (alpha - 1)


rdp._compute_rdp = _rdp_of_step


class _Ghost(GradSampleModule):  # type: ignore[misc]
    """Mode ghost: of linear layers, which have most parameters, no gradient of an example is made, only its two factors
    kept (Goodfellow 2015; Bu et al. 2023). A parameter that one forward pass uses twice has no such factors."""

    def __init__(self, model: nn.Module) -> None:
        self._shared: set[nn.Parameter] = set()
        super().__init__(model, loss_reduction="sum")

    def capture_activations_hook(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        super().capture_activations_hook(module, inputs, outputs)
        self._shared |= {p for p in module.parameters() if getattr(p, "_forward_counter", 0) > 1}

    def capture_backprops_hook(
        self, module: nn.Module, inputs: Any, outputs: Any, loss_reduction: str, batch_first: bool
    ) -> None:
        gradients = outputs[0].detach()
        if type(module) is not nn.Linear or gradients.dim() != 2 or not self._shared.isdisjoint(module.parameters()):
            super().capture_backprops_hook(module, inputs, outputs, loss_reduction, batch_first)
            return
        (activations,), gradients = self.rearrange_grad_samples(
            module=module, backprops=gradients, loss_reduction=loss_reduction, batch_first=batch_first
        )
        del module.max_batch_len
        found: list[tuple[Any, PerExample]] = [(module.weight, OuterProducts(gradients, activations))]
        found.append((module.bias, gradients))
        for parameter, made in found:
            if parameter is not None and parameter.requires_grad:
                parameter.grad_sample = made
                parameter._forward_counter -= 1


def rows_in_memory(model: nn.Module, *, mode: str) -> int:
    """How many examples' gradients mode ghost, which is there to save memory, may hold at once: 256 MB of them."""
    # Linear layers over the places of a sequence have no two factors.
    sequences = any(isinstance(module, nn.Embedding) for module in model.modules())
    linear = [] if sequences else [module for module in model.modules() if type(module) is nn.Linear]
    factored = {p for module in linear for p in module.parameters()}
    made = sum(p.numel() for p in model.parameters() if p.requires_grad and p not in factored)
    return max(1, GHOST_VALUES // max(1, made)) if mode == "ghost" else sys.maxsize


@contextmanager
def private_layers(model: nn.Module) -> Iterator[None]:
    """Inside the block each nn.LSTM of `model` is a DPLSTM, of which Opacus makes each example's gradient. It computes
    the same from the very same parameters."""
    plain = {name: module for name, module in model.named_modules() if type(module) is nn.LSTM and name}
    plain = {name: module for name, module in plain.items() if module.bias and not module.proj_size}
    try:
        for name, module in plain.items():
            model.set_submodule(name, _private_lstm(module))
        yield
    finally:
        for name, module in plain.items():
            model.set_submodule(name, module)


def _private_lstm(module: nn.LSTM) -> nn.Module:
    with torch.device("meta"):  # initial values would be drawn and thrown away
        made: Any = DPLSTM(
            module.input_size,
            module.hidden_size,
            module.num_layers,
            batch_first=module.batch_first,
            dropout=module.dropout,
            bidirectional=module.bidirectional,
        )
    for name, own in made.old_to_new.items():
        owner, _, kind = name.rpartition(".")
        parameter = getattr(module, own)
        setattr(made.get_submodule(owner), kind, parameter)
        setattr(made, own, parameter)
    made.train(module.training)
    return made  # type: ignore[no-any-return]


@contextmanager
def wrapped(model: nn.Module, *, mode: str) -> Iterator[Any]:
    """`model` with Opacus's hooks, which are removed afterwards."""
    with private_layers(model), _hooked(model, mode) as made:
        yield made


@contextmanager
def _hooked(model: nn.Module, mode: str) -> Iterator[Any]:
    made: Any
    made = _Ghost(model) if mode == "ghost" else wrap_model(model, grad_sample_mode=mode, loss_reduction="sum")
    try:
        with warnings.catch_warnings():
            # The first layer's hook fires although pixels need no gradient, which is as it should be.
            warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)
            yield made
    finally:
        made.to_standard_module()
        for parameter in model.parameters():
            parameter.grad = None
            _clear(parameter, ATTRIBUTES)
        for module in model.modules():
            _clear(module, MODULE_ATTRIBUTES)


def _clear(holder: Any, names: tuple[str, ...]) -> None:
    for name in names:
        if hasattr(holder, name):
            delattr(holder, name)


def per_example_gradients(parameters: list[nn.Parameter], losses: Tensor) -> list[PerExample]:
    """By parameter, the gradients of a batch's `losses` (B,), made with a `wrapped` model. None is left behind."""
    losses.sum().backward()  # type: ignore[no-untyped-call]
    found: list[PerExample] = []
    for parameter in parameters:
        made: Any = parameter.grad_sample  # type: ignore[attr-defined]
        parameter.grad = parameter.grad_sample = None  # type: ignore[attr-defined]
        if not isinstance(made, Tensor | OuterProducts) or len(made) != len(losses):
            raise ValueError("Opacus makes no gradient of each example for some of its parameters")
        found.append(made)
    return found


def validation_errors(model: nn.Module) -> list[str]:
    """Why Opacus cannot train `model` with DP-SGD; empty where it can."""
    was_training = model.training
    with warnings.catch_warnings(), private_layers(model):
        warnings.simplefilter("ignore")
        errors = ModuleValidator.validate(model.train(), strict=False)
    model.train(was_training)
    return [str(error) for error in errors]


def epsilon_of(history: list[tuple[float, float, int]], delta: float, accountant: str, **options: float) -> float:
    """Epsilon at `delta` of a history of (noise multiplier, sample rate, steps), by accountant "rdp" or "prv"."""
    with warnings.catch_warnings():  # that other RDP orders might give a tighter bound
        warnings.simplefilter("ignore")
        if accountant == "prv":
            return _prv_epsilon(history, delta, **options)
        made = create_accountant(mechanism=accountant)
        made.history = history
        return float(made.get_epsilon(delta=delta, **options))


def _prv_epsilon(history: list[tuple[float, float, int]], delta: float, *, eps_error: float = 0.01) -> float:
    """As `PRVAccountant.get_epsilon`, which puts each step on a grid anew for every epsilon: two thirds of its time."""
    steps = [count for _, _, count in history]
    made = compose_heterogeneous(dprvs=_on_grid(_most(history), delta, eps_error), num_self_compositions=steps)
    return float(made.compute_epsilon(delta, delta / PRV_DELTA, eps_error)[2])


def _most(history: list[tuple[float, float, int]]) -> tuple[tuple[float, float, int], ...]:
    """The same with more steps: a grid that is fine enough for these is for fewer, too (Gopi et al. 2021, theorem 5.5).
    So a run whose history grows by a step at a time needs few grids."""
    return tuple((sigma, rate, 1 << max(4, (count - 1).bit_length())) for sigma, rate, count in history)


@lru_cache(maxsize=4)
def _on_grid(history: tuple[tuple[float, float, int], ...], delta: float, error: float) -> list[Any]:
    """One step of each kind as a discrete random variable, fine enough for `history`."""
    domain, kinds = _domain(history, delta, error)
    return [discretize(TruncatedPrivacyRandomVariable(kind, domain.t_min, domain.t_max), domain) for kind in kinds]


def _domain(history: tuple[tuple[float, float, int], ...], delta: float, error: float) -> tuple[Any, list[Any]]:
    kinds = [PoissonSubsampledGaussianPRV(rate, sigma) for sigma, rate, _ in history]
    steps = [count for _, _, count in history]
    return create_accountant(mechanism="prv")._get_domain(kinds, steps, error, delta / PRV_DELTA), kinds


def prv_points(history: list[tuple[float, float, int]], delta: float, error: float) -> float:
    """On how many points PRV would put `history`, all its entries together, to find epsilon to within `error`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        domain, _ = _domain(_most(history), delta, error)
    return float(len(history) * domain.size)
