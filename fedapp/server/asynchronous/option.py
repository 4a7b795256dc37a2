"""The group `rounds`: whether the server waits for a cohort, or steps as updates come."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

from pydantic import Field

from fedapp.aggregation.plain.update_buffer import UpdateBuffer
from fedapp.aggregation.protocol import protocol_of
from fedapp.common.errors import ConfigError
from fedapp.config import Config, choice_of, option
from fedapp.data.source import Examples
from fedapp.learning.build import Parts
from fedapp.privacy.option import privacy_of
from fedapp.server.asynchronous.arrivals import Arrivals, RealArrivals
from fedapp.server.asynchronous.asynchronous_rounds import AsynchronousRounds
from fedapp.server.asynchronous.client_speed import speed_of
from fedapp.server.asynchronous.one_by_one import check_planned, check_single
from fedapp.server.asynchronous.policy import BufferPolicy, CohortPolicy, Policy, Refill
from fedapp.server.asynchronous.recorded_order import RecordedArrivals, read_order
from fedapp.server.asynchronous.virtual_arrivals import VirtualArrivals
from fedapp.server.build import cohort_rule
from fedapp.server.exchange import Exchange
from fedapp.server.horizontal_rounds import HorizontalRounds
from fedapp.server.rounds import SynchronousRounds
from fedapp.server.secret_rounds import SecretRounds
from fedapp.updates.steps import UpdateSteps, steps_of

__all__ = ["Buffered", "RoundsOption", "Synchronous", "rounds_of"]


class RoundsOption(ABC):
    """What a run does with its clients over time."""

    def conflicts(self, config: Config, parts: Parts) -> None:
        """Raise ConfigError for a config or parts that do not go with such rounds."""
        speed_of(config).conflicts(config)
        if config.run.replay is not None:
            self.order(config, parts)

    def check_clients(self, clients: int) -> None:  # noqa: B027 (most work with any)
        """Raise ConfigError for what cannot work with so many clients."""

    def check_judges(self, config: Config, test: Examples | None) -> None:  # noqa: B027 (most need nobody)
        """Raise ConfigError where nobody can judge the model as the stop rules need it. `test`: the server's."""

    @abstractmethod
    def policy(self, config: Config) -> Policy | None:
        """Of rounds that do not wait for everybody they have asked; None of those that do."""

    def build(self, config: Config, parts: Parts, steps: UpdateSteps, arguments: tuple[Any, ...]) -> HorizontalRounds:
        """`arguments`: what all horizontal rounds take, and the seconds that a reply is waited for."""
        *common, timeout = arguments
        privacy, policy = privacy_of(config), self.policy(config)
        if policy is None:
            kind = SynchronousRounds if privacy.discloses_cohort else SecretRounds
            return kind(*common, round_timeout=timeout)
        arrivals = self._arrivals(config, parts, common[0], timeout)
        return AsynchronousRounds(
            *common,
            round_timeout=timeout,
            policy=policy,
            buffer=_buffer(config, steps),
            arrivals=arrivals,
            shows_times=arrivals.is_virtual or privacy.discloses_metrics,
        )

    def _arrivals(self, config: Config, parts: Parts, exchange: Exchange, timeout: float) -> Arrivals:
        speed, federation = speed_of(config), config.federation
        if config.run.replay is not None:
            return RecordedArrivals(exchange, timeout, self.order(config, parts), keeps=_clients_keep(config, parts))
        if speed.plays:
            limit, dropout, seed = federation.round_timeout, federation.dropout, config.run.seed
            return VirtualArrivals(exchange, timeout, speed, limit=limit, dropout=dropout, seed=seed)
        return RealArrivals(exchange, timeout)

    def order(self, config: Config, parts: Parts) -> tuple[Mapping[str, Any], ...]:
        """The recorded order that run.replay names. Raises ConfigError."""
        if self.policy(config) is None:
            raise ConfigError(
                f"run.replay={config.run.replay}: rounds that wait for their cohort have no order of arrival; it is for"
                " rounds=buffered, and for virtual time (federation.client_speed)"
            )
        if privacy_of(config).spends:
            chosen = choice_of("privacy", config.privacy["_target_"])
            raise ConfigError(
                f"run.replay={config.run.replay}: {chosen} draws its noise anew, so that no replay gives the same"
                " model, and each spends of the clients' budgets again; leave it null"
            )
        settled = replace(config, data={**config.data, **parts.source.settled()})  # as config.yaml has it
        keeps = _clients_keep(config, parts)
        return read_order(str(config.run.replay), json.loads(json.dumps(asdict(settled))), keeps=keeps)


@dataclass(frozen=True)
class Synchronous(RoundsOption):
    """rounds=synchronous: each round waits for its cohort, or for as many of it as it needs."""

    def conflicts(self, config: Config, parts: Parts) -> None:
        super().conflicts(config, parts)
        if self.policy(config) is not None:
            check_single(config, "federation.client_speed: speeds are played where updates come one by one")

    def policy(self, config: Config) -> Policy | None:
        return CohortPolicy() if speed_of(config).plays else None


@dataclass(frozen=True)
class Buffered(RoundsOption):
    """rounds=buffered: FedBuff (Nguyen et al. 2022). The keys are those of conf/rounds/buffered.yaml."""

    concurrency: Annotated[int, Field(ge=1)]
    buffer_size: Annotated[int, Field(ge=1)]
    staleness_exponent: Annotated[float, Field(ge=0, le=10)]
    max_staleness: Annotated[int, Field(ge=0)]
    refill: Refill
    save_every: Annotated[int, Field(ge=1)] | None

    def policy(self, config: Config) -> Policy:
        return BufferPolicy(
            max_staleness=self.max_staleness,
            staleness_exponent=self.staleness_exponent,
            save_every=self.save_every,
            concurrency=self.concurrency,
            buffer_size=self.buffer_size,
            refill=self.refill,
        )

    def conflicts(self, config: Config, parts: Parts) -> None:
        privacy = privacy_of(config)
        if not privacy.discloses_cohort:
            chosen = choice_of("privacy", config.privacy["_target_"])
            raise ConfigError(
                f"rounds=buffered: not with {chosen}. Its noise is planned for"
                " sums over cohorts that are drawn in secret and whatever clients' speed; set rounds=synchronous, or"
                " privacy=dp_sgd, which protects each update by itself"
            )
        check_single(config, "rounds=buffered: a buffer holds updates of several rounds")
        super().conflicts(config, parts)
        self._check_sizes(config)
        self._check_rule(config)
        check_planned(config, privacy)

    def check_clients(self, clients: int) -> None:
        if self.buffer_size > clients:
            raise ConfigError(
                f"rounds.buffer_size={self.buffer_size}: a buffer has one update of a client, and there are {clients}"
                f" clients; set it to {clients}, or less"
            )

    def _check_sizes(self, config: Config) -> None:
        federation, least = config.federation, cohort_rule(config).minimum
        if self.buffer_size < least:
            raise ConfigError(
                f"rounds.buffer_size={self.buffer_size}: a step needs {least} good updates (federation.min_clients,"
                f" strategy.aggregation); set it to {least}, or more"
            )
        if self.refill == "after_step" and self.buffer_size > self.concurrency:
            raise ConfigError(
                f"rounds.buffer_size={self.buffer_size}: with rounds.refill=after_step no more than rounds.concurrency="
                f"{self.concurrency} clients are asked for a step; raise it, or set rounds.refill=at_once"
            )
        if federation.over_selection:
            raise ConfigError(
                f"federation.over_selection={federation.over_selection:g}: rounds=buffered has no cohort; set it to 0,"
                " and rounds.concurrency to how many clients are to be at work"
            )

    def _check_rule(self, config: Config) -> None:
        if self.staleness_exponent and _buffer(config, UpdateSteps()).counts_alike:
            raise ConfigError(
                f"rounds.staleness_exponent={self.staleness_exponent:g}:"
                f" {config.strategy.aggregation['_target_']} counts every update alike; set it to 0"
            )

    def check_judges(self, config: Config, test: Examples | None) -> None:
        federation = config.federation
        if test is None and (federation.patience or federation.target_accuracy or federation.result != "last"):
            raise ConfigError(
                "federation.patience, federation.target_accuracy, federation.result: with rounds=buffered clients judge"
                " models of several rounds at once, so the server needs test data of its own for these"
            )


def _clients_keep(config: Config, parts: Parts) -> bool:
    """Whether what a client did in earlier rounds has a say in what it sends, or in what stays with it."""
    return steps_of(config).keeps_state or not parts.is_whole or parts.personal.own is not None


def _buffer(config: Config, steps: UpdateSteps) -> UpdateBuffer:
    made = protocol_of(config).buffer(config, steps)
    assert made is not None, "checked by `conflicts`"
    return made


def rounds_of(config: Config) -> RoundsOption:
    """Raises ConfigError."""
    return option("rounds", config.rounds, RoundsOption)
