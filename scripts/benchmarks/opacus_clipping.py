"""The same DP-SGD with Opacus's own optimizers, whose norms and sums are in float32: what safe clipping is compared to.

Noise, samples and the plain optimizer are fedapp's, so that clipping is all that differs.
"""

import warnings
from dataclasses import dataclass

import torch
from opacus.grad_sample import wrap_model
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping
from torch import nn

from fedapp.data.source import Examples
from fedapp.learning.optimizer_step import make_optimizer
from fedapp.privacy.dp_training import PrivateTraining

__all__ = ["OpacusTraining"]


@dataclass(frozen=True)
class OpacusTraining:
    """`training`, for the modes "ew" and "ghost", as Opacus does it."""

    training: PrivateTraining

    def __call__(self, model: nn.Module, examples: Examples, *, seed: tuple[int | str, ...]) -> None:
        asked, noise = self.training, self.training.noise()
        ghost = asked.mode == "ghost"
        options = {"max_grad_norm": asked.max_grad_norm, "use_ghost_clipping": True} if ghost else {}
        hooked = wrap_model(model.train(), grad_sample_mode=asked.mode, loss_reduction="sum", **options)
        plain = make_optimizer(asked.optimizer, list(model.parameters()))
        optimizer = (DPOptimizerFastGradientClipping if ghost else DPOptimizer)(
            plain, noise_multiplier=0, max_grad_norm=asked.max_grad_norm, expected_batch_size=None, loss_reduction="sum"
        )
        std = asked.noise_multiplier * asked.max_grad_norm
        device = next(model.parameters()).device
        with warnings.catch_warnings(), noise.in_torch(device) as fill_masks:
            warnings.simplefilter("ignore")
            for _ in range(asked.steps):
                sample = noise.poisson_sample(len(examples), asked.sample_rate)
                fill_masks()
                losses = asked.loss(hooked(examples.inputs[sample]), examples.targets[sample])
                if ghost:
                    DPTensorFastGradientClipping(hooked, optimizer, losses, "sum").backward()
                else:
                    losses.sum().backward()
                    optimizer.clip_and_accumulate()
                for parameter in optimizer.params:
                    total = parameter.grad if ghost else parameter.summed_grad
                    noisy = (total.double() + noise.normal(total.shape, std)).to(total)
                    parameter.grad = noisy / (asked.sample_rate * len(examples))
                    parameter.grad_sample = parameter.summed_grad = None
                plain.step()
                plain.zero_grad(set_to_none=ghost)
        hooked.to_standard_module()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.grad = None
