"""Learning rates over rounds, by torch's schedulers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from fedapp.learning.optimizer_step import make_optimizer

__all__ = ["LearningRateSchedule"]


class _Still(torch.optim.Optimizer):
    """Rates like those of torch.optim.SGD, and steps that do nothing, and so import nothing."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__(parameters, {"lr": 1.0, "momentum": 0.0})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        return None


class LearningRateSchedule:
    """The factor on a learning rate as a function of the round, from a scheduler of `torch.optim.lr_scheduler`.

    The scheduler moves the rate of an optimizer of its own, which begins at 1 and trains nothing.
    """

    def __init__(self, scheduler: Callable[[torch.optim.Optimizer], LRScheduler]) -> None:
        self._make = scheduler
        self._start()

    def factor(self, server_round: int) -> float:
        """The factor in round `server_round`, 1 being the first."""
        if server_round < self._round:
            self._start()
        while self._round < server_round:
            self._optimizer.step()  # torch warns of a scheduler that steps without its optimizer
            self._scheduler.step()
            self._round += 1
        return float(self._optimizer.param_groups[0]["lr"])

    def _start(self) -> None:
        self._optimizer = make_optimizer(_Still, [nn.Parameter(torch.zeros(1))])
        self._scheduler = self._make(self._optimizer)
        self._round = 1
