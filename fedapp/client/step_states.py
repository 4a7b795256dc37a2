"""What update steps keep of a client from round to round, in its SuperNode's memory, for as long as the run lasts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flwr.app import RecordDict

from fedapp.updates.step import StepState, UpdateStep
from fedapp.wire.records import arrays_to_state, state_to_arrays

__all__ = ["StepStates"]


@dataclass(frozen=True)
class StepStates:
    """`state`: the SuperNode's, which Flower keeps between messages. `steps`: those that keep something."""

    state: RecordDict
    steps: Sequence[UpdateStep]

    def of(self, client: int) -> dict[str, StepState]:
        """By step, its tensors as they were last kept."""
        records = self.state.array_records
        keys = {step.name: self._key(step.name, client) for step in self.steps}
        return {name: arrays_to_state(records[key]) if key in records else {} for name, key in keys.items()}

    def keep(self, client: int, states: Mapping[str, StepState]) -> None:
        for name, tensors in states.items():
            self.state[self._key(name, client)] = state_to_arrays(tensors)

    @staticmethod
    def _key(name: str, client: int) -> str:
        return f"step-{name}-{client}"
