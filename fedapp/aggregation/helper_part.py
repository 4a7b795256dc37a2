"""The half of a protocol that answers messages, and what a protocol has where helper sites take part, or the model is
not the server's; most have neither."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from flwr.app import RecordDict

from fedapp.common.errors import ConfigError
from fedapp.common.state_digest import State
from fedapp.config import Config
from fedapp.wire.instruction import Instruction
from fedapp.wire.reply import ClientReport

if TYPE_CHECKING:
    from fedapp.learning.build import Parts
    from fedapp.privacy.limits import OwnLimits

__all__ = ["ClientHalf", "Handler", "HelperPart", "Train"]

Train = Callable[[int, Instruction, State], tuple[ClientReport, State]]  # one client's report, and what it sends
Handler = Callable[[RecordDict, RecordDict, Train], RecordDict]  # (message, the SuperNode's state, train) -> reply


class ClientHalf(ABC):
    @property
    @abstractmethod
    def stages(self) -> Mapping[str, Handler]:
        """By name of a stage, what answers it."""

    def opened(self, instruction: Instruction, model: State, state: RecordDict) -> State:
        """The model of a message in clear. `state`: the SuperNode's. Raises FederationError."""
        return model


class HelperPart:
    """Properties and methods of an option of `secure_aggregation`."""

    @property
    def helper_sites(self) -> int:
        """How many helper sites take part."""
        return 0

    @property
    def model_at_server(self) -> bool:
        """Whether the server has the model. Else it is the clients', and their messages bring them a sealed one."""
        return True

    def sealed_sha256(self, model: State) -> str | None:
        """The SHA-256 of a model that the server cannot read; None where it knows none."""
        return None

    def helper(self, config: Config, parts: "Parts", limits: "OwnLimits", folder: Path | None) -> ClientHalf:
        """What a helper site does. `folder`: where it may keep what outlasts its SuperNode, where there is one."""
        raise ConfigError("secure_aggregation: this run has no part for a helper site (node-config role)")

    def reply_bytes(self, parts: "Parts") -> int:
        """That a reply may have beyond what the size of its message allows."""
        return 0
