"""The server's step: the mean update as the negative gradient of a torch.optim optimizer (Reddi et al. 2021)."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fedapp.learning.optimizer_step import make_optimizer, stepper

__all__ = ["ServerOptimizer"]

State = dict[str, Tensor]


class ServerOptimizer:
    """`parameters` names the entries of the state dict that the optimizer steps; other floating-point entries
    (BatchNorm statistics) take the plain average, and integer entries stay as they are. So do those that `constants`
    names, and a variance that would be no more than 0: a codec rounds differences, also of what has not changed."""

    def __init__(
        self,
        parameters: Iterable[str],
        factory: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
        constants: Collection[str] = (),
    ) -> None:
        self._names, self._factory, self._constants = list(parameters), factory, frozenset(constants)
        self._parameters: dict[str, nn.Parameter] = {}
        self._optimizer: torch.optim.Optimizer | None = None

    def step(self, state: Mapping[str, Tensor], mean: Mapping[str, Tensor], lr_factor: float = 1.0) -> State:
        """The next global model, from this one and the mean update; `lr_factor` scales the learning rate."""
        optimizer = self._made(state)
        for name, parameter in self._parameters.items():
            parameter.data.copy_(state[name])
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * lr_factor
        stepper(optimizer)([-mean[name].to(parameter.dtype) for name, parameter in self._parameters.items()])
        after = dict(state)
        for name, update in mean.items():
            if name in self._parameters:
                after[name] = self._parameters[name].detach().clone()
            elif name not in self._constants:
                after[name] = _moved(name, state[name], update)
        return after

    def state_dict(self) -> dict[str, Any]:
        """torch's state dict of the optimizer; empty before the first step."""
        return self._optimizer.state_dict() if self._optimizer is not None else {}

    def load_state_dict(self, saved: dict[str, Any], state: Mapping[str, Tensor]) -> None:
        """Go on from `saved`; `state` is a model of the same form."""
        if saved:
            self._made(state).load_state_dict(saved)

    def _made(self, state: Mapping[str, Tensor]) -> torch.optim.Optimizer:
        if self._optimizer is None:
            self._parameters = {name: nn.Parameter(state[name].clone()) for name in self._names}
            self._optimizer = make_optimizer(self._factory, list(self._parameters.values()))
            for group in self._optimizer.param_groups:
                group["initial_lr"] = group["lr"]
        return self._optimizer


def _moved(name: str, value: Tensor, update: Tensor) -> Tensor:
    moved = value + update.to(value.dtype)
    if name.rpartition(".")[2] == "running_var":  # of torch's BatchNorm
        moved = torch.where((moved <= 0) & (value > 0), value, moved)
    return moved
