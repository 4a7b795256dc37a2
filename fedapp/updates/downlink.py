"""The group `downlink`: what a message brings of the model, all of it or its differences from one that its SuperNode
has."""

from dataclasses import dataclass
from typing import Literal

from fedapp.common.errors import ConfigError
from fedapp.config import Config, choice_of, option
from fedapp.updates.difference_codec import DifferenceCodec

__all__ = ["Downlink", "QuantisedDifferences", "WholeModels", "downlink_of"]


class Downlink:
    """What all options of the group have."""

    def codec(self, exact: frozenset[str]) -> DifferenceCodec | None:
        """Of differences of a model in which the tensors `exact` are never rounded; None where messages bring whole
        models."""
        return None

    def check(self, config: Config, *, secret_cohorts: bool, model_at_server: bool) -> None:
        """Raise ConfigError for what this does not go with. `secret_cohorts`: nobody may learn who was asked.
        `model_at_server`: whether the server has the model."""

    def check_rounds(self, config: Config, *, synchronous: bool) -> None:
        """The same. `synchronous`: whether all messages of a round bring one model."""


@dataclass(frozen=True)
class WholeModels(Downlink):
    """downlink=whole."""


@dataclass(frozen=True)
class QuantisedDifferences(Downlink):
    """The keys of `conf/downlink/differences.yaml`, which says what each means."""

    bits: Literal[8, 4]

    def codec(self, exact: frozenset[str]) -> DifferenceCodec:
        return DifferenceCodec(self.bits, exact)

    def check(self, config: Config, *, secret_cohorts: bool, model_at_server: bool) -> None:
        mine = choice_of("downlink", config.downlink["_target_"])
        if secret_cohorts:
            raise ConfigError(
                f"{mine}: what SuperNodes store, and the server's note of it, tell who was asked, which"
                f" {choice_of('privacy', config.privacy['_target_'])} keeps secret; set downlink=whole"
            )
        if not model_at_server:
            raise ConfigError(
                f"{mine}: needs the model at the server, and with secure_aggregation.sum_to=clients the server"
                " has none; set downlink=whole"
            )

    def check_rounds(self, config: Config, *, synchronous: bool) -> None:
        if not synchronous:
            raise ConfigError(
                f"{choice_of('downlink', config.downlink['_target_'])}: is for rounds that wait for their"
                " cohort, whose clients all begin with one model; set downlink=whole, or rounds=synchronous without"
                " federation.client_speed"
            )


def downlink_of(config: Config) -> Downlink:
    """Raises ConfigError."""
    return option("downlink", config.downlink, Downlink)
