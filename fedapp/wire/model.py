"""The global model of a round: as tensors, and as the record that messages carry."""

from collections.abc import Mapping
from functools import cached_property

from flwr.app import ArrayRecord
from torch import Tensor

from fedapp.common.state_digest import State, state_sha256
from fedapp.wire.records import arrays_to_state, state_to_arrays

__all__ = ["GlobalModel"]


class GlobalModel:
    """The part of the model that travels (`models/shared_state.py`). Encoded once, however many messages carry it."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state: State = state

    @classmethod
    def from_arrays(cls, arrays: ArrayRecord) -> "GlobalModel":
        """Raises ValueError for anything but numeric arrays."""
        return cls(arrays_to_state(arrays))

    @cached_property
    def arrays(self) -> ArrayRecord:
        return state_to_arrays(self.state)

    @cached_property
    def sha256(self) -> str:
        return state_sha256(self.state)

    @cached_property
    def template(self) -> dict[str, Tensor]:
        """What of it is aggregated: the floating-point tensors, in the model's order."""
        return {key: value for key, value in self.state.items() if value.is_floating_point()}
