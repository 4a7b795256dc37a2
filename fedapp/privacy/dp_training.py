"""DP-SGD on one client's examples (Abadi et al. 2016), with gradients clipped by Opacus."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedapp.common.seeding import seeded
from fedapp.data.source import Examples
from fedapp.learning.optimizer_step import make_optimizer
from fedapp.learning.training import OptimizerFactory, TrainingResult
from fedapp.privacy.noise import Noise
from fedapp.privacy.opacus_internals import clipped_sums, private_optimizer, wrapped

__all__ = ["PrivateTraining"]

LossPerExample = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class PrivateTraining:
    """`steps` of DP-SGD with Poisson samples of rate `sample_rate`, computed in batches of at most `batch_size`.

    Each example's gradient is clipped to an L2 norm of `max_grad_norm`; Gaussian noise of `noise_multiplier` times that
    is added to their sum, which is then divided by `sample_rate` times `public_count` of the number of examples: the
    divisor shows in the size of the noise, so it must not be secret.

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

    def __call__(
        self, model: nn.Module, examples: Examples, *, seed: tuple[int | str, ...], lr_factor: float = 1.0
    ) -> TrainingResult:
        """Train `model` in place. `seed`, which is public, is not used.

        Dropout's masks must be as secret as the noise. They depend on an example's place in the batch, so one more
        example shifts those after it to other masks, and an observer who knew the masks would see a larger change than
        one clipped gradient. The loss is not returned, since epsilon does not cover it.
        """
        noise = self.noise()
        scale = self.sample_rate * self.public_count(len(examples))
        device = next(model.parameters()).device
        devices = (device.index or 0,) if device.type == "cuda" else ()
        model.train()
        with (
            seeded(noise.torch_seed, "dropout", devices=devices),
            wrapped(model, mode=self.mode, max_grad_norm=self.max_grad_norm) as hooked,
        ):
            parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
            start = [parameter.detach().clone() for parameter in parameters] if self.proximal_mu else []
            optimizer = self._optimizer(parameters, noise, lr_factor)
            for _ in range(self.steps):
                sample = noise.poisson_sample(len(examples), self.sample_rate)
                self._sum_clipped(hooked, optimizer, examples, sample, device)
                optimizer.add_noise()
                for parameter in parameters:
                    assert parameter.grad is not None
                    parameter.grad /= scale
                for parameter, origin in zip(parameters, start, strict=False):
                    assert parameter.grad is not None
                    parameter.grad.add_(parameter.detach() - origin, alpha=self.proximal_mu)
                optimizer.original_optimizer.step()
        return TrainingResult(self.steps, None)

    def _optimizer(self, parameters: list[nn.Parameter], noise: Noise, lr_factor: float) -> Any:
        plain = make_optimizer(self.optimizer, parameters)
        for group in plain.param_groups:
            group["lr"] *= lr_factor
        return private_optimizer(
            plain,
            noise,
            mode=self.mode,
            noise_multiplier=self.noise_multiplier,
            max_grad_norm=self.max_grad_norm,
        )

    def _sum_clipped(
        self, hooked: Any, optimizer: Any, examples: Examples, sample: Tensor, device: torch.device
    ) -> None:
        """Leave the sum of the sample's clipped gradients in each parameter's `summed_grad`.

        An example whose gradient is not finite counts as zero and leaves the others' sum unchanged: a server can send a
        model that overflows on the very examples that it looks for.
        """
        totals = [torch.zeros_like(parameter) for parameter in optimizer.params]
        for batch in torch.split(sample, self.batch_size) if len(sample) else ():
            found = self._clipped(hooked, optimizer, examples, batch, device)
            if not _finite(found):
                alone = (self._clipped(hooked, optimizer, examples, one, device) for one in torch.split(batch, 1))
                sound = [gradients for gradients in alone if _finite(gradients)]
                found = [sum(parts, torch.zeros_like(totals[i])) for i, parts in enumerate(zip(*sound, strict=True))]
            for total, gradient in zip(totals, found, strict=False):  # none where no example was sound
                total += gradient
        for parameter, total in zip(optimizer.params, totals, strict=True):
            parameter.summed_grad = total

    def _clipped(
        self, hooked: Any, optimizer: Any, examples: Examples, batch: Tensor, device: torch.device
    ) -> list[Tensor]:
        """By parameter, the sum of clipped gradients over one batch."""
        losses = self.loss(hooked(examples.inputs[batch].to(device)), examples.targets[batch].to(device))
        return clipped_sums(hooked, optimizer, losses, mode=self.mode)


def _finite(gradients: list[Tensor]) -> bool:
    return all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
