"""Everything that fedapp takes from inside of Opacus. Written for opacus 1.6; importing this module takes 2 s.

Needs of it: `wrap_model` and, of the wrapped model, `to_standard_module`; `DPOptimizer` and
`DPOptimizerFastGradientClipping` with `params`, `clip_and_accumulate`, `grad_sample` and `summed_grad`;
`DPTensorFastGradientClipping`; `ModuleValidator`; accountants whose `history` can be set; `rdp._compute_rdp`.
tests/privacy/test_opacus_internals.py checks these against the installed version.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from opacus.accountants import create_accountant
from opacus.accountants.analysis import rdp
from opacus.grad_sample import wrap_model
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping
from opacus.validators import ModuleValidator
from torch import Tensor, nn, optim

from fedapp.privacy.noise import Noise

__all__ = ["clipped_sums", "epsilon_of", "private_optimizer", "validation_errors", "wrapped"]

ATTRIBUTES = ("grad_sample", "summed_grad", "_norm_sample")  # that Opacus leaves on parameters

# The cost of one step at one RDP order is computed once. Accountants ask for it again for every epsilon, which took 45
# of 55 ms for each client and round.
rdp._compute_rdp = lru_cache(maxsize=65_536)(rdp._compute_rdp)


class _OwnNoise:
    """Mixed into Opacus's optimizers: noise comes from `noise`, with standard deviation sigma * C as there."""

    noise: Noise

    def add_noise(self) -> None:
        for parameter in self.params:  # type: ignore[attr-defined]
            std = self.noise_multiplier * self.max_grad_norm  # type: ignore[attr-defined]
            summed = parameter.summed_grad
            if std:  # added in float64, which not every device has, and rounded once
                summed = (summed.cpu().double() + self.noise.normal(summed.shape, std)).to(summed)
            parameter.grad = summed.view_as(parameter)


class _PerExample(_OwnNoise, DPOptimizer):  # type: ignore[misc]
    """With the gradient of every example in memory: modes hooks, functorch and ew."""


class _Ghost(_OwnNoise, DPOptimizerFastGradientClipping):  # type: ignore[misc]
    """With the norms of gradients only (Li et al. 2022; Bu et al. 2022): mode ghost, two backward passes."""


def private_optimizer(
    plain: optim.Optimizer, noise: Noise, *, mode: str, noise_multiplier: float, max_grad_norm: float
) -> Any:
    """`plain` with Opacus's clipping. Its `add_noise` sets each parameter's `grad` to `summed_grad` plus noise."""
    made = (_Ghost if mode == "ghost" else _PerExample)(
        plain,
        noise_multiplier=noise_multiplier,
        max_grad_norm=max_grad_norm,
        expected_batch_size=None,
        loss_reduction="sum",
    )
    made.noise = noise
    return made


@contextmanager
def wrapped(model: nn.Module, *, mode: str, max_grad_norm: float) -> Iterator[Any]:
    """`model` with Opacus's hooks, which are removed afterwards."""
    options = {"max_grad_norm": max_grad_norm, "use_ghost_clipping": True} if mode == "ghost" else {}
    made = wrap_model(model, grad_sample_mode=mode, loss_reduction="sum", **options)
    try:
        with warnings.catch_warnings():
            # The first layer's hook fires although pixels need no gradient, which is as it should be.
            warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)
            yield made
    finally:
        made.to_standard_module()
        for parameter in model.parameters():
            parameter.grad = None
            for name in ATTRIBUTES:
                if hasattr(parameter, name):
                    delattr(parameter, name)


def clipped_sums(model: Any, optimizer: Any, losses: Tensor, *, mode: str) -> list[Tensor]:
    """By parameter of `optimizer`, the sum over a batch of clipped gradients. `losses`: (B,), from the wrapped `model`.

    Nothing is left on the parameters, so that batches can be summed by the caller.
    """
    for parameter in optimizer.params:
        parameter.summed_grad = None
    if mode == "ghost":
        DPTensorFastGradientClipping(model, optimizer, losses, "sum").backward()
        found = [parameter.grad for parameter in optimizer.params]
    else:
        losses.sum().backward()  # type: ignore[no-untyped-call]
        optimizer.clip_and_accumulate()
        found = [parameter.summed_grad for parameter in optimizer.params]
    for parameter in optimizer.params:
        parameter.grad = parameter.grad_sample = None
    return [gradient.detach() for gradient in found]


def validation_errors(model: nn.Module) -> list[str]:
    """Why Opacus cannot train `model` with DP-SGD; empty where it can."""
    was_training = model.training
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        errors = ModuleValidator.validate(model.train(), strict=False)
    model.train(was_training)
    return [str(error) for error in errors]


def epsilon_of(history: list[tuple[float, float, int]], delta: float, accountant: str) -> float:
    """Epsilon at `delta` of a history of (noise multiplier, sample rate, steps), by accountant "rdp" or "prv"."""
    made = create_accountant(mechanism=accountant)
    made.history = history
    with warnings.catch_warnings():  # that other RDP orders might give a tighter bound
        warnings.simplefilter("ignore")
        return float(made.get_epsilon(delta=delta))
