"""What clients keep from message to message."""

from dataclasses import dataclass

from fedapp.client.heads import Heads
from fedapp.client.step_states import StepStates
from fedapp.privacy.protection import Account

__all__ = ["ClientStorage"]


@dataclass(frozen=True)
class ClientStorage:
    """What clients keep from message to message: accounts under differential privacy, heads where they are personal,
    and the state of update steps."""

    account: Account | None = None
    heads: Heads | None = None
    step_states: StepStates | None = None
