"""What a run protects of its clients' data: the interface of the options of the group `privacy`."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from fedapp.config import Config, option
from fedapp.data.findings import Findings
from fedapp.learning.build import Parts
from fedapp.privacy.ledger import FileLedger
from fedapp.privacy.limits import OwnLimits
from fedapp.privacy.noised_integers import NoisedIntegers
from fedapp.privacy.protection import Protection
from fedapp.privacy.sampling import Sampling
from fedapp.privacy.server_accounts import ServerAccounts
from fedapp.privacy.server_budget import ServerBudget
from fedapp.updates.step import UpdateStep

__all__ = ["PrivacyOption", "privacy_of"]


class PrivacyOption(ABC):
    """`discloses_metrics`: losses, metrics and moments of a client's data may leave it. `spends`: clients pay for what
    they send, and keep a ledger of it. `discloses_cohort`: the run directory may tell who took part, and how many.
    `free_keys`: settings that may change where a run is resumed, since they do not change what it computes."""

    discloses_metrics: ClassVar[bool]
    spends: ClassVar[bool]
    discloses_cohort: ClassVar[bool] = True
    free_keys: ClassVar[frozenset[str]] = frozenset()

    def in_run(self, config: Config) -> "PrivacyOption":
        """What it is in a run of this config."""
        return self

    def conflicts(self, config: Config, parts: Parts) -> None:  # noqa: B027 (there may be none)
        """Raise ConfigError for a config or parts that do not go with this option."""

    def check_simulation(self, config: Config, parts: Parts) -> None:  # noqa: B027 (most leave nothing secret there)
        """Raise ConfigError for what a simulation's clients would write into its run directory, and must not."""

    @abstractmethod
    def check_site(self, limits: OwnLimits, data: Mapping[str, Any]) -> None:
        """Raise ConfigError where this is not what a SuperNode's operator asks for. `data`: the config's data node."""

    @abstractmethod
    def protection(self, config: Config, parts: Parts, limits: OwnLimits, *, on_device: bool) -> Protection:
        """How this SuperNode's clients train. `on_device`: their data is real. Raises ConfigError."""

    def steps(self, config: Config, parts: Parts) -> tuple[UpdateStep, ...]:
        """What it does to updates."""
        return ()

    def noised_integers(self, config: Config, parts: Parts) -> NoisedIntegers | None:
        """How a protocol that shows the server sums alone makes whole numbers of an update; None where it may."""
        return None

    def sampling(self, config: Config) -> Sampling | None:
        """How the server draws cohorts in secret; None where they follow from the run's seed."""
        return None

    def server_budget(self, config: Config, ledger: FileLedger, *, lasts: bool) -> ServerBudget | None:
        """What the server itself spends, in a ledger of its own; None where it spends nothing. `lasts`: over runs, so
        that a new one is begun on request alone."""
        return None

    def foresight(self, config: Config, parts: Parts) -> Findings:
        """What is known before the run of the noise that it will add."""
        return Findings()

    def server_accounts(self, config: Config, parts: Parts, num_examples: Mapping[int, int]) -> ServerAccounts | None:
        """The server's own count of what clients spend; None where they spend nothing."""
        return None

    def summary(self, config: Config, parts: Parts) -> dict[str, Any] | None:
        """What summary.json says of it."""
        return None


def privacy_of(config: Config) -> PrivacyOption:
    """Raises ConfigError."""
    return option("privacy", config.privacy, PrivacyOption).in_run(config)
