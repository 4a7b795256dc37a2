"""Training a model on one client's examples, and nothing of federation."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedapp.common.errors import ConfigError, DeviceError
from fedapp.common.seeding import generator, seeded
from fedapp.data.source import Examples
from fedapp.learning.optimizer_step import make_optimizer, stepper

__all__ = ["LocalTraining", "TrainingResult", "minibatches", "resolve_device"]

LossFunction = Callable[[Tensor, Tensor], Tensor]
OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def resolve_device(name: str, key: str = "run.device") -> torch.device:
    """`name`, the value of `key`, as a torch device. Raises DeviceError where it does not exist here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise DeviceError(f"{key}={name}: {reason}. Use auto, cpu, or a device that this machine has") from None
    return device


def minibatches(num_examples: int, batch_size: int, random: torch.Generator) -> Iterator[Tensor]:
    """One epoch's index batches (B,) in random order.

    A single example left over joins the batch before it: BatchNorm cannot train on a batch of one.
    """
    order = torch.randperm(num_examples, generator=random)
    batches = list(torch.split(order, batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return iter(batches)


@dataclass(frozen=True)
class TrainingResult:
    """`loss` is the mean over all examples seen, each measured when its batch came up; None where nobody may know."""

    steps: int
    loss: float | None


@dataclass(frozen=True)
class LocalTraining:
    """How a client trains: mini-batch gradient descent, with a proximal term (FedProx, Li et al. 2020) on request.

    `adjustment`, where there is one, gives of all targets what is added to the outputs (B, *output_shape) of training.
    `prepare`, where there is one, makes of a batch's inputs what the model takes, anew each time: augmentation.
    More than `max_steps` are refused before the first one. After `max_seconds` it stops, always after a whole step and
    never before the first one. With `precision` "bf16" the forward pass computes in bfloat16 where torch's
    autocast holds that to be safe; parameters and steps stay float32.
    """

    loss: LossFunction
    optimizer: OptimizerFactory
    local_epochs: int
    batch_size: int
    proximal_mu: float = 0.0
    adjustment: Callable[[Tensor], Tensor] | None = None
    prepare: Callable[[Tensor], Tensor] | None = None
    max_seconds: float | None = None
    max_steps: int | None = None
    precision: str = "fp32"
    clock: Callable[[], float] = time.monotonic

    def __call__(
        self,
        model: nn.Module,
        examples: Examples,
        *,
        seed: tuple[int | str, ...],
        lr_factor: float = 1.0,
        anchor: Sequence[Tensor] | None = None,
    ) -> TrainingResult:
        """Train `model` in place. Shuffling, augmentation and dropout depend on `seed` alone. `anchor`: where the
        proximal term holds its trained parameters; None: where they are at the start."""
        self.check_work(len(examples))
        end = self.clock() + self.max_seconds if self.max_seconds is not None else math.inf
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        start = [parameter.detach().clone() for parameter in anchor or parameters] if self.proximal_mu else []
        optimizer = make_optimizer(self.optimizer, parameters)
        for group in optimizer.param_groups:
            group["lr"] *= lr_factor
        step = stepper(optimizer)
        device = parameters[0].device
        added = self.adjustment(examples.targets).to(device) if self.adjustment is not None else None
        steps, seen, total = 0, 0, torch.zeros((), device=device)
        model.train()
        devices = (device.index or 0,) if device.type == "cuda" else ()
        with seeded(*seed, "dropout", devices=devices):
            for batch in self._batches(len(examples), generator(*seed, "shuffle")):
                inputs, targets = examples.inputs[batch].to(device), examples.targets[batch].to(device)
                inputs = self.prepare(inputs) if self.prepare is not None else inputs
                with torch.autocast(device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext():
                    outputs = model(inputs)
                    loss = self.loss(outputs if added is None else outputs + added, targets)
                step(self._gradients(loss, parameters, start))
                steps, seen = steps + 1, seen + len(batch)
                total += loss.detach() * len(batch)
                if self.clock() >= end:
                    break
        return TrainingResult(steps, float(total) / seen)

    def check_work(self, num_examples: int) -> None:
        """Raises ConfigError for more steps than `max_steps`."""
        full, left = divmod(num_examples, self.batch_size)
        steps = self.local_epochs * max(1, full + (left > 1 or (left and not full)))
        if self.max_steps is not None and steps > self.max_steps:
            raise ConfigError(
                f"train.local_epochs={self.local_epochs}, train.batch_size={self.batch_size}: {steps} steps a round,"
                " and this SuperNode's operator allows fewer (node-config max-steps)"
            )

    def _gradients(self, loss: Tensor, parameters: list[nn.Parameter], start: list[Tensor]) -> Sequence[Tensor | None]:
        """Of the loss, and of the proximal term where there is a `start`; None for what the loss does not depend on."""
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        if not start:
            return found
        away = [parameter.detach() - origin for parameter, origin in zip(parameters, start, strict=True)]
        pairs = zip(found, away, strict=True)
        return [None if gradient is None else gradient.add(far, alpha=self.proximal_mu) for gradient, far in pairs]

    def _batches(self, num_examples: int, random: torch.Generator) -> Iterator[Tensor]:
        for _ in range(self.local_epochs):
            yield from minibatches(num_examples, self.batch_size, random)
