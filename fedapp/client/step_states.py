"""What update steps keep of a client from round to round, beside its personal head and as long as that."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from fedapp.client.heads import Heads
from fedapp.updates.step import StepState, UpdateStep

__all__ = ["StepStates"]


@dataclass(frozen=True)
class StepStates:
    """`stores`: by client, where it lies, as it was after each round. `steps`: those that keep something."""

    stores: Heads
    steps: Sequence[UpdateStep]

    def of(self, client: int, server_round: int) -> dict[str, StepState]:
        """By step, its tensors as they were before this round."""
        found: dict[str, StepState] = {step.name: {} for step in self.steps}
        for name, tensor in (self.stores(client).after(server_round - 1) or {}).items():
            step, _, key = name.partition("/")
            if step in found:
                found[step][key] = tensor
        return found

    def keep(self, client: int, server_round: int, states: Mapping[str, StepState]) -> None:
        """As they are after this round."""
        tensors: dict[str, Tensor] = {
            f"{name}/{key}": tensor for name, state in states.items() for key, tensor in state.items()
        }
        if tensors:
            self.stores(client).keep(server_round, tensors)
