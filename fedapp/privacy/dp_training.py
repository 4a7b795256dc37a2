"""DP-SGD on one client's examples (Abadi et al. 2016), by Opacus. The only place where it trains."""

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from opacus.grad_sample import wrap_model
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping
from torch import Tensor, nn

from fedapp.common.seeding import seeded
from fedapp.data.source import Examples
from fedapp.learning.optimizer_step import make_optimizer
from fedapp.learning.training import OptimizerFactory, TrainingResult
from fedapp.privacy.noise import Noise

__all__ = ["PrivateTraining"]

LossPerExample = Callable[[Tensor, Tensor], Tensor]


class _OwnNoise:
    """Mixed into Opacus's optimizers: noise comes from `noise`, and its standard deviation is sigma * C as there."""

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
    """With only its norm (Li et al. 2022; Bu et al. 2022): mode ghost, two backward passes."""


@dataclass(frozen=True)
class PrivateTraining:
    """`steps` of DP-SGD with Poisson samples of rate `sample_rate`, computed in batches of at most `batch_size`.

    Each example's gradient is clipped to an L2 norm of `max_grad_norm`; Gaussian noise of `noise_multiplier` times that
    is added to their sum, which is then divided by `sample_rate` times the number of examples that `public_count`
    makes of the true one: what divides is visible in the size of the noise, and must be no secret.

    `loss` gives one value an example. What follows the noise is post-processing: any torch.optim optimizer with its
    momentum, weight decay, and the proximal term of FedProx. Samples and noise come from `noise()`, a new one a call.
    """

    loss: LossPerExample
    optimizer: OptimizerFactory
    noise: Callable[[], Noise]
    noise_multiplier: float
    max_grad_norm: float
    sample_rate: float
    steps: int
    batch_size: int
    public_count: Callable[[int], int]
    mode: str = "hooks"
    proximal_mu: float = 0.0
    max_seconds: float | None = None
    clock: Callable[[], float] = time.monotonic

    def __call__(
        self, model: nn.Module, examples: Examples, *, seed: tuple[int | str, ...], lr_factor: float = 1.0
    ) -> TrainingResult:
        """Train `model` in place. `seed`, which is public, is not used.

        Dropout's masks must be as secret as the noise: they go by an example's place in the batch, so one example more
        moves those after it to other masks, and whoever knew these would see more change than one clipped gradient.
        The loss is not known: it would not be covered.
        """
        end = self.clock() + self.max_seconds if self.max_seconds is not None else math.inf
        noise = self.noise()
        scale = self.sample_rate * self.public_count(len(examples))
        device = next(model.parameters()).device
        devices = (device.index or 0,) if device.type == "cuda" else ()
        model.train()
        with seeded(noise.torch_seed, "dropout", devices=devices), self._wrapped(model) as wrapped:
            parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
            start = [parameter.detach().clone() for parameter in parameters] if self.proximal_mu else []
            optimizer = self._optimizer(parameters, noise, lr_factor)
            done = 0
            while done < self.steps:
                sample = noise.poisson_sample(len(examples), self.sample_rate)
                self._sum_clipped(wrapped, optimizer, examples, sample, device)
                optimizer.add_noise()
                for parameter in parameters:
                    assert parameter.grad is not None
                    parameter.grad /= scale
                for parameter, origin in zip(parameters, start, strict=False):
                    assert parameter.grad is not None
                    parameter.grad.add_(parameter.detach() - origin, alpha=self.proximal_mu)
                optimizer.original_optimizer.step()
                done += 1
                if self.clock() >= end:
                    break
        return TrainingResult(done, None)

    def _optimizer(self, parameters: list[nn.Parameter], noise: Noise, lr_factor: float) -> Any:
        plain = make_optimizer(self.optimizer, parameters)
        for group in plain.param_groups:
            group["lr"] *= lr_factor
        made = (_Ghost if self.mode == "ghost" else _PerExample)(
            plain,
            noise_multiplier=self.noise_multiplier,
            max_grad_norm=self.max_grad_norm,
            expected_batch_size=None,
            loss_reduction="sum",
        )
        made.noise = noise
        return made

    def _sum_clipped(
        self, wrapped: Any, optimizer: Any, examples: Examples, sample: Tensor, device: torch.device
    ) -> None:
        """Leave the sum of the sample's clipped gradients in each parameter's `summed_grad`.

        An example whose gradient is not finite counts as nothing, and takes nothing from the others: a server can send
        a model that overflows on the very examples that it looks for.
        """
        totals = [torch.zeros_like(parameter) for parameter in optimizer.params]
        for batch in torch.split(sample, self.batch_size) if len(sample) else ():
            found = self._clipped(wrapped, optimizer, examples, batch, device)
            if not _finite(found):
                alone = (self._clipped(wrapped, optimizer, examples, one, device) for one in torch.split(batch, 1))
                sound = [gradients for gradients in alone if _finite(gradients)]
                found = [sum(parts, torch.zeros_like(totals[i])) for i, parts in enumerate(zip(*sound, strict=True))]
            for total, gradient in zip(totals, found, strict=False):  # none where no example was sound
                total += gradient
        for parameter, total in zip(optimizer.params, totals, strict=True):
            parameter.summed_grad = total

    def _clipped(
        self, wrapped: Any, optimizer: Any, examples: Examples, batch: Tensor, device: torch.device
    ) -> list[Tensor]:
        """By parameter, the sum of clipped gradients over one batch."""
        for parameter in optimizer.params:
            parameter.summed_grad = None
        losses = self.loss(wrapped(examples.inputs[batch].to(device)), examples.targets[batch].to(device))
        if self.mode == "ghost":
            DPTensorFastGradientClipping(wrapped, optimizer, losses, "sum").backward()
            found = [parameter.grad for parameter in optimizer.params]
        else:
            losses.sum().backward()  # type: ignore[no-untyped-call]
            optimizer.clip_and_accumulate()
            found = [parameter.summed_grad for parameter in optimizer.params]
        for parameter in optimizer.params:
            parameter.grad = parameter.grad_sample = None
        return [gradient.detach() for gradient in found]

    @contextmanager
    def _wrapped(self, model: nn.Module) -> Iterator[Any]:
        """`model` with Opacus's hooks, which are gone afterwards."""
        options = {"max_grad_norm": self.max_grad_norm, "use_ghost_clipping": True} if self.mode == "ghost" else {}
        wrapped = wrap_model(model, grad_sample_mode=self.mode, loss_reduction="sum", **options)
        try:
            with warnings.catch_warnings():
                # The first layer's hook fires although pixels need no gradient, which is as it should be.
                warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)
                yield wrapped
        finally:
            wrapped.to_standard_module()
            for parameter in model.parameters():
                parameter.grad = None
                for name in ("grad_sample", "summed_grad", "_norm_sample"):
                    if hasattr(parameter, name):
                        delattr(parameter, name)


def _finite(gradients: list[Tensor]) -> bool:
    return all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
