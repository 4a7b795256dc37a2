"""Learning rates over rounds, by torch's schedulers."""

from collections.abc import Callable

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

__all__ = ["LearningRateSchedule"]


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
        self._optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        self._scheduler = self._make(self._optimizer)
        self._round = 1
