"""DP-SGD on one client's examples (Abadi et al. 2016); Opacus makes the gradient of each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedapp.data.source import Examples
from fedapp.learning.optimizer_step import make_optimizer
from fedapp.learning.training import OptimizerFactory, TrainingResult
from fedapp.privacy.clipping import MOST_ROWS, clipped_sums
from fedapp.privacy.noise import Noise
from fedapp.privacy.opacus_internals import per_example_gradients, rows_in_memory, wrapped

__all__ = ["PrivateTraining"]

LossPerExample = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class PrivateTraining:
    """`steps` of DP-SGD with Poisson samples of rate `sample_rate`, computed in batches of at most `batch_size` and 96.

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
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        start = [parameter.detach().clone() for parameter in parameters] if self.proximal_mu else []
        optimizer = make_optimizer(self.optimizer, parameters)
        for group in optimizer.param_groups:
            group["lr"] *= lr_factor
        model.train()
        with noise.in_torch(parameters[0].device) as fill_masks, wrapped(model, mode=self.mode) as hooked:
            for _ in range(self.steps):
                sample = noise.poisson_sample(len(examples), self.sample_rate)
                fill_masks()
                totals = self._clipped(hooked, parameters, examples, sample)
                for parameter, total in zip(parameters, totals, strict=True):
                    if self.noise_multiplier:
                        total += noise.normal(total.shape, self.noise_multiplier * self.max_grad_norm)
                    parameter.grad = (total / scale).to(parameter)
                for parameter, origin in zip(parameters, start, strict=False):
                    assert parameter.grad is not None
                    parameter.grad.add_(parameter.detach() - origin, alpha=self.proximal_mu)
                optimizer.step()
        return TrainingResult(self.steps, None)

    def _clipped(self, hooked: Any, parameters: list[nn.Parameter], examples: Examples, sample: Tensor) -> list[Tensor]:
        """By parameter, the sum (float64) of the sample's clipped gradients."""
        totals = [torch.zeros(parameter.shape, dtype=torch.float64) for parameter in parameters]
        device = parameters[0].device
        rows = min(self.batch_size, MOST_ROWS, rows_in_memory(hooked, mode=self.mode))
        for batch in torch.split(sample, rows) if len(sample) else ():
            losses = self.loss(hooked(examples.inputs[batch].to(device)), examples.targets[batch].to(device))
            gradients = per_example_gradients(parameters, losses)
            for total, found in zip(totals, clipped_sums(gradients, self.max_grad_norm), strict=True):
                total += found
        return totals
