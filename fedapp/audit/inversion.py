"""Gradient inversion: from one update to the examples that it was made of (Zhu et al. 2019; Geiping et al. 2020)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedapp.common.seeding import generator
from fedapp.data.source import Examples
from fedapp.learning.task import Task

__all__ = ["Inversion", "invert", "one_update"]

ATTEMPTS = 2
TOTAL_VARIATION = 1e-4


@dataclass(frozen=True)
class Inversion:
    """`truth` and `found`, in matching order: (B, *shape). `explained`: which share of the examples' variance around
    the average example has been found, 1 for all of it; 0 or less is no better than to guess that average."""

    truth: Tensor
    found: Tensor
    explained: float


def one_update(model: nn.Module, training: Callable[..., object], batch: Examples, seed: int) -> dict[str, Tensor]:
    """What `training` on `batch` adds to each trained parameter; `model` is left as it was."""
    start = {key: value.clone() for key, value in model.state_dict().items()}
    training(model, batch, seed=(seed, 1, 0))
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    update = {name: model.state_dict()[name] - start[name] for name in names}
    model.load_state_dict(start)
    return update


def invert(
    task: Task, model: nn.Module, update: dict[str, Tensor], batch: Examples, public: Examples, seed: int, steps: int
) -> Inversion:
    """Look for inputs whose gradient points against `update`, by Adam on the cosine between them.

    The attacker knows the model, the labels (which can be read from the last layer), how many examples there were and,
    from `public` examples, in what range values lie and what the average looks like. `batch` serves to judge only.
    """
    low, high = public.inputs.double().min(0).values.float(), public.inputs.double().max(0).values.float()
    best: tuple[float, Tensor] | None = None
    for attempt in range(ATTEMPTS):
        random = generator(seed, "inversion", attempt)
        hidden = torch.randn(batch.inputs.shape, generator=random).requires_grad_()
        optimizer = torch.optim.Adam([hidden], lr=0.1)
        for _ in range(steps):
            optimizer.zero_grad()
            guess = low + (high - low) * torch.sigmoid(hidden)
            distance = _distance(task, model, update, guess, batch.targets)
            (distance + TOTAL_VARIATION * _total_variation(torch.sigmoid(hidden))).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        found = float(distance.detach())
        if best is None or found < best[0]:
            best = found, (low + (high - low) * torch.sigmoid(hidden)).detach()
    assert best is not None
    return _matched(batch, best[1], public)


def _distance(task: Task, model: nn.Module, update: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
    """1 - cosine of the angle between `update` and the negative gradient of `inputs` (0: same direction)."""
    model.eval()
    parameters = {name: value for name, value in model.named_parameters() if name in update}
    loss = task.loss(functional_call(model, {**model.state_dict(), **parameters}, (inputs,)), targets)
    gradients = torch.autograd.grad(loss, [parameters[name] for name in update], create_graph=True)
    along = sum(
        ((gradient * update[name]).sum() for gradient, name in zip(gradients, update, strict=True)), torch.zeros(())
    )
    norms = [torch.stack([value.norm() for value in values]).norm() for values in (gradients, update.values())]
    cosine: Tensor = along / (norms[0] * norms[1]).clamp(min=1e-12)
    return 1 + cosine


def _total_variation(images: Tensor) -> Tensor:
    """Mean difference of neighbouring pixels: natural images are smooth. 0 for tables."""
    if images.dim() != 4:
        return torch.zeros(())
    return images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean()


def _matched(batch: Examples, found: Tensor, public: Examples) -> Inversion:
    """Each example beside the reconstruction that was meant for it: the attacker's order tells nothing."""
    from scipy.optimize import linear_sum_assignment

    truth = batch.inputs.float()
    distances = ((truth[:, None] - found[None]) ** 2).flatten(2).sum(2)
    _, order = linear_sum_assignment(distances.numpy())
    found = found[order]
    average = public.inputs.float().mean(0)
    explained = 1 - float(((truth - found) ** 2).sum() / ((truth - average) ** 2).sum())
    return Inversion(truth, found, explained)
