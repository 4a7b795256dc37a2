"""What a run does with its clients over time. The run around it knows only this."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from fedapp.server.clock import Clock
from fedapp.server.outcome import Metrics, RoundOutcome
from fedapp.server.run_directory.checkpoint import Checkpoint
from fedapp.wire.model import GlobalModel

__all__ = ["Procedure"]


class Procedure(Protocol):
    """`model`: the global model as it is now. `exhausted`: why there is no privacy budget for another round; None where
    there is."""

    model: GlobalModel

    @property
    def exhausted(self) -> str | None: ...

    def begin(self) -> Metrics:
        """Metrics of the initial model on the server's test data."""

    def round(self, server_round: int, run: str, clock: Clock) -> RoundOutcome:
        """One more round. `run`: the run's name. Where its time goes is booked on `clock`."""

    def final(self, server_round: int, run: str, *, deliver: bool) -> RoundOutcome:
        """The last model on the clients, after `server_round` rounds; with `deliver` devices store it."""

    def optimizer_state(self) -> dict[str, Any]:
        """The server optimizer's state dict."""

    def tensors(self) -> Mapping[str, Tensor]:
        """What of a checkpoint is tensors besides model and optimizer, by name."""

    def state_dict(self) -> dict[str, Any]:
        """What else a resumed run needs, as JSON holds it."""

    def load(self, saved: Checkpoint) -> None:
        """Go on from a checkpoint, whose values hold what `state_dict` gave."""
