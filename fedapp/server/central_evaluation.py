"""What the server finds out about a model on its own test data."""

from functools import cached_property
from typing import Any

from torch import nn

from fedapp.common.state_digest import State
from fedapp.data.source import Examples
from fedapp.learning.task import Task
from fedapp.models.shared_state import load_shared
from fedapp.server.outcome import Metrics

__all__ = ["CentralEvaluation"]


class CentralEvaluation:
    """`network` serves it: whatever model is judged is loaded into its tensors. `test`: what the network takes; None
    where the server has no data. Of `rounds` the model is judged after each `every` one, and the last."""

    def __init__(
        self, task: Task, network: nn.Module, test: Examples | None, *, every: int = 1, rounds: int | None = None
    ) -> None:
        self.task, self.network, self.test = task, network, test
        self._every, self._rounds = every, rounds

    def due(self, server_round: int) -> bool:
        """Whether the model is judged after this round."""
        return self.test is None or server_round % self._every == 0 or server_round == self._rounds

    def unknown(self) -> Metrics:
        """Of a model that is not judged, all metrics as None."""
        return dict.fromkeys(("test_loss", *(f"test_{name}" for name in self.task.metrics)))

    def metrics(self, model: State) -> Metrics:
        """As test_<name>; empty where there is no test data, None for what that does not define."""
        if self.test is None:
            return {}
        load_shared(self.network, model)
        judged = self.task.evaluate(self.network, self.test)
        if judged is None:
            return {}
        undefined = self._undefined
        found = {f"test_{name}": None if name in undefined else value for name, value in judged.metrics.items()}
        return {"test_loss": judged.loss, **found}

    def details(self, model: State) -> dict[str, Any]:
        """What else the task says of a model, as JSON holds it."""
        if self.test is None:
            return {}
        load_shared(self.network, model)
        return self.task.details(self.network, self.test)

    def warnings(self, validation: Metrics) -> dict[str, str]:
        """By kind, which metrics are defined neither by the test data nor by `validation`, the clients'."""
        found = {
            f"test_{name}": f"test_{name} is not defined on the server's test data: {why}"
            for name, why in self._undefined.items()
        }
        for name in self.task.metrics if validation.get("val_loss") is not None else ():
            if validation.get(f"val_{name}") is None:
                found[f"val_{name}"] = f"val_{name} is not defined on the validation split of any client that replied"
        return found

    @cached_property
    def _undefined(self) -> dict[str, str]:
        """Which metrics the test data does not define, whatever the model, and why."""
        if self.test is None:
            return {}
        found = {name: self.task.undefined(name, self.test.targets) for name in self.task.metrics}
        return {name: why for name, why in found.items() if why}
