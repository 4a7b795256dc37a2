"""What a run protects of its clients' data: the interface of the options of the group `privacy`."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from fedapp.common.errors import ConfigError
from fedapp.config import Config, instantiate
from fedapp.learning.build import Parts
from fedapp.privacy.limits import OwnLimits
from fedapp.privacy.protection import Protection
from fedapp.privacy.server_accounts import ServerAccounts

__all__ = ["PrivacyOption", "privacy_of"]


class PrivacyOption(ABC):
    """`discloses_metrics`: losses, metrics and moments of a client's data may leave it. `spends`: clients pay for what
    they send, and keep a ledger of it."""

    discloses_metrics: ClassVar[bool]
    spends: ClassVar[bool]

    def conflicts(self, config: Config, parts: Parts) -> None:  # noqa: B027 (there may be none)
        """Raise ConfigError for a config or parts that do not go with this option."""

    @abstractmethod
    def check_site(self, limits: OwnLimits, data: Mapping[str, Any]) -> None:
        """Raise ConfigError where this is not what a SuperNode's operator asks for. `data`: the config's data node."""

    @abstractmethod
    def protection(self, config: Config, parts: Parts, limits: OwnLimits, *, on_device: bool) -> Protection:
        """How this SuperNode's clients train. `on_device`: their data is real. Raises ConfigError."""

    def server_accounts(self, config: Config, parts: Parts, num_examples: Mapping[int, int]) -> ServerAccounts | None:
        """The server's own count of what clients spend; None where they spend nothing."""
        return None

    def summary(self, config: Config, parts: Parts) -> dict[str, Any] | None:
        """What summary.json says of it."""
        return None


def privacy_of(config: Config) -> PrivacyOption:
    """Raises ConfigError."""
    made = instantiate("privacy", config.privacy)
    if not isinstance(made, PrivacyOption):
        raise ConfigError(f"privacy._target_={config.privacy['_target_']}: is not a fedapp.privacy.option option")
    return made
