"""secure_aggregation=none: the server sees each SuperNode's sum, and single updates where a rule or step needs them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from fedapp.aggregation.plain.client import PlainClient
from fedapp.aggregation.plain.server import PlainServer
from fedapp.aggregation.plain.update_buffer import UpdateBuffer
from fedapp.aggregation.protocol import AggregationProtocol
from fedapp.aggregation.rules import AggregationRule
from fedapp.common.state_digest import State
from fedapp.config import Config, instantiate
from fedapp.learning.build import Parts
from fedapp.privacy.limits import OwnLimits
from fedapp.privacy.option import privacy_of
from fedapp.updates.steps import UpdateSteps, steps_of

__all__ = ["Plain"]


@dataclass(frozen=True)
class Plain(AggregationProtocol):
    """The weighted sum, or a robust rule over single updates (`strategy.aggregation`)."""

    individual_updates = True
    exact = True
    keeps_state = False

    def server(self, config: Config, parts: Parts, steps: UpdateSteps) -> PlainServer:
        return PlainServer(_rule(config), steps)

    def buffer(self, config: Config, steps: UpdateSteps) -> UpdateBuffer:
        return UpdateBuffer(_rule(config), steps)

    def client(self, config: Config, parts: Parts, limits: OwnLimits) -> PlainClient:
        return PlainClient(steps_of(config, privacy_of(config).steps(config, parts)).level_bits)


def _rule(config: Config) -> Callable[[State], AggregationRule]:
    made = instantiate("strategy.aggregation", config.strategy.aggregation, partial=True)
    return cast(Callable[[State], AggregationRule], made)
