"""secure_aggregation=none: the server sees each SuperNode's sum, and the update of a client that is alone on one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from fedapp.aggregation.plain.client import PlainClient
from fedapp.aggregation.plain.server import PlainServer
from fedapp.aggregation.protocol import AggregationProtocol
from fedapp.aggregation.rules import AggregationRule
from fedapp.common.errors import ConfigError
from fedapp.common.state_digest import State
from fedapp.config import Config, instantiate
from fedapp.privacy.limits import OwnLimits
from fedapp.updates.steps import steps_of

__all__ = ["Plain"]


@dataclass(frozen=True)
class Plain(AggregationProtocol):
    """The weighted sum, or a robust rule over single updates (`strategy.aggregation`)."""

    individual_updates = True
    exact = True
    keeps_state = False

    def server(self, config: Config, parts: Any) -> PlainServer:
        rule = instantiate("strategy.aggregation", config.strategy.aggregation, partial=True)
        return PlainServer(cast(Callable[[State], AggregationRule], rule), steps_of(config))

    def client(self, config: Config, parts: Any, limits: OwnLimits) -> PlainClient:
        if limits.asks_for_secure_aggregation:
            raise ConfigError(
                "secure_aggregation=none: this SuperNode's operator asks for secure aggregation (node-config min-cohort"
                " or peers)"
            )
        return PlainClient()
