"""Whether the options of a run go together: asked alike by whoever starts it, by the server, and by every client."""

from typing import Protocol

from fedapp.aggregation.protocol import AggregationProtocol
from fedapp.aggregation.selection.selection import selection_of
from fedapp.config import Config
from fedapp.learning.build import Parts
from fedapp.privacy.option import PrivacyOption
from fedapp.updates.downlink import downlink_of
from fedapp.updates.steps import UpdateSteps

__all__ = ["check_options"]


class Option(Protocol):
    """What every option of a group of nodes has."""

    def conflicts(self, config: Config, parts: Parts) -> None: ...


def check_options(
    config: Config, parts: Parts, protocol: AggregationProtocol, privacy: PrivacyOption, steps: UpdateSteps
) -> None:
    """Raises ConfigError for the first conflict that an option names."""
    options: tuple[Option, ...] = (parts.personal, privacy, protocol, selection_of(config), *steps.steps)
    for option in options:
        option.conflicts(config, parts)
    secret, there = not privacy.discloses_cohort, protocol.model_at_server
    downlink_of(config).check(config, secret_cohorts=secret, model_at_server=there)
