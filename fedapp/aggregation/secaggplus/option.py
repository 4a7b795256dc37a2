"""secure_aggregation=secaggplus: the server learns the aggregate of a cohort's updates, and no individual update."""

import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from fedapp.aggregation.secaggplus.batches import complete_batches
from fedapp.aggregation.secaggplus.client import SecAggClient
from fedapp.aggregation.secaggplus.least_sum import LeastSum
from fedapp.aggregation.secaggplus.repetition import Repetitions
from fedapp.aggregation.secaggplus.server import SecAggServer
from fedapp.aggregation.secaggplus.settings import Settings
from fedapp.aggregation.secaggplus.stages import Timeouts
from fedapp.aggregation.whole_numbers.secret_sum import SecretSum
from fedapp.common.device_keys import read_identity, read_peers
from fedapp.common.errors import ConfigError
from fedapp.config import Config
from fedapp.learning.build import Parts
from fedapp.privacy.limits import OwnLimits
from fedapp.privacy.noised_integers import NoisedIntegers
from fedapp.privacy.option import privacy_of
from fedapp.updates.steps import UpdateSteps

__all__ = ["SecAggPlus"]

log = logging.getLogger("flwr")

Seconds = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class SecAggPlus(SecretSum):
    """The keys of `conf/secure_aggregation/secaggplus.yaml`, which says what each means."""

    neighbours: Annotated[int, Field(ge=2)] | None
    threshold: Annotated[int, Field(ge=2)] | None
    clip: Annotated[float, Field(gt=0, le=1e6)]
    bits: Annotated[int, Field(ge=4, le=32)]
    modulus_bits: Literal[16, 24, 32, 40, 48, 56, 64]
    batches: Annotated[int, Field(ge=2)] | None
    keys_timeout: Seconds
    shares_timeout: Seconds
    masked_timeout: Seconds | None
    consistency_timeout: Seconds
    unmask_timeout: Seconds

    setting = "secure_aggregation=secaggplus"
    keeps_state = True
    takes_noised_integers = True
    free_keys = frozenset({"keys_timeout", "shares_timeout", "masked_timeout", "consistency_timeout", "unmask_timeout"})

    @property
    def settings(self) -> Settings:
        return Settings(
            self.neighbours,
            self.threshold,
            self.batches,
            clip=self.clip,
            bits=self.bits,
            modulus_bits=self.modulus_bits,
        )

    def _settings(self, config: Config, noised: NoisedIntegers | None) -> Settings:
        return replace(self.settings, noised=noised is not None).of(self.level_bits(config))

    def conflicts(self, config: Config, parts: Parts) -> None:
        super().conflicts(config, parts)
        if (noised := privacy_of(config).noised_integers(config, parts)) is not None:
            for cohort in range(noised.least, noised.expected + 1):
                self.settings.check_honest(cohort, noised.honest_share)

    def groups(self, clients: Collection[int]) -> list[tuple[int, ...]]:
        return complete_batches(clients, self.settings.batch)

    def check_cohort(self, config: Config, parts: Parts, needed: int, asked: int, clients: int) -> None:
        """With the arithmetic in its message."""
        noised = privacy_of(config).noised_integers(config, parts)
        settings = self._settings(config, noised)
        settings.check_batches(needed, clients)
        settings.check(needed)
        settings.check(asked)
        if noised is not None and not noised.least <= needed <= noised.expected:
            raise ConfigError(
                f"privacy.population, federation.fraction_train: noise is planned for sums over {noised.least} to"
                f" {noised.expected} clients, and rounds have {needed} of the {clients} that are there; set"
                " privacy.population to how many there are"
            )

    def server(self, config: Config, parts: Parts, steps: UpdateSteps) -> SecAggServer:
        training = config.federation.round_timeout
        timeouts = Timeouts(
            self.keys_timeout,
            self.shares_timeout,
            self.masked_timeout or training,
            self.consistency_timeout,
            self.unmask_timeout,
        )
        noised = privacy_of(config).noised_integers(config, parts)
        return SecAggServer(
            self._settings(config, noised),
            timeouts,
            self.metric_ranges(config, parts),
            self.maths(config),
            lowest=self.lowest_values(parts),
            noised=noised,
            steps=steps,
        )

    def client(self, config: Config, parts: Parts, limits: OwnLimits) -> SecAggClient:
        """Two clients at least are a cohort. On a device, and where others are pinned, the server may lie."""
        peers = read_peers(limits.peers) if limits.peers is not None else None
        signed = limits.of_device or peers is not None
        if limits.min_cohort is not None and peers is None:
            raise ConfigError(
                "min-cohort: under secure_aggregation=secaggplus it needs peers, the folder with the public keys of the"
                " other sites (--peers): without them a server could invent the rest of a cohort"
            )
        if signed and limits.signing_key is None:
            raise ConfigError(
                "signing-key: under secure aggregation a device signs, and its node-config must name the file of its"
                " own key (scripts/deploy/supernode does)"
            )
        if limits.of_device and limits.keep is None:
            raise ConfigError(
                "keep-path: under secure aggregation a device notes for which models it has revealed shares, and its"
                " node-config must name a folder for it (scripts/deploy/supernode does)"
            )
        if signed and peers is None:
            log.warning(
                "peers: this SuperNode pins no other device's key, so secure aggregation protects it only from a server"
                " that invents no clients (node-config peers, or --peers)"
            )
        if signed:
            self.settings.check_majority(max(2, config.federation.min_clients))
        noised = privacy_of(config).noised_integers(config, parts)
        fewest = max(2, limits.min_cohort or 0, noised.least if noised is not None else 0)
        return SecAggClient(
            self._settings(config, noised),
            self.metric_ranges(config, parts),
            seed=config.run.seed,
            config_sha256=self.maths(config),
            least=LeastSum(fewest, signed, noised.honest_share if noised is not None else None),
            noised=noised,
            identity=read_identity(limits.signing_key) if limits.signing_key is not None else None,
            peers=peers,
            repetitions=Repetitions(limits.keep) if limits.of_device and limits.keep is not None else None,
        )
