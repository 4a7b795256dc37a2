"""What the protocols that sum through a helper have in common as options."""

import logging
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from fedapp.aggregation.helper.carrier import Carrier
from fedapp.aggregation.helper.client import HelperClient
from fedapp.aggregation.helper.helper_site import HelperSite
from fedapp.aggregation.helper.next_model import ModelKeeper
from fedapp.aggregation.helper.released import FILE, Released
from fedapp.aggregation.helper.run_store import RunStore
from fedapp.aggregation.helper.sealed_model import SEEN_FILE, ModelOpener, about_of, is_sealed
from fedapp.aggregation.helper.server import HelperServer
from fedapp.aggregation.whole_numbers.fixed_point import FixedPoint
from fedapp.aggregation.whole_numbers.noted_file import NotedFile
from fedapp.aggregation.whole_numbers.secret_sum import SecretSum
from fedapp.aggregation.whole_numbers.sum_reading import SumReading
from fedapp.common.device_keys import read_helpers, read_identity, read_peers
from fedapp.common.errors import ConfigError
from fedapp.common.state_digest import State
from fedapp.config import Config
from fedapp.learning.build import Parts, bytes_of
from fedapp.privacy.limits import OwnLimits
from fedapp.updates.steps import UpdateSteps, steps_of

__all__ = ["ThroughHelper"]

log = logging.getLogger("flwr")

ABOUT_BYTES = 1 << 18  # that a sealed model has beyond the model, with some 500 clients
WIDEST = 10  # times the model's bytes, in any form in which a sum travels


@dataclass(frozen=True)
class ThroughHelper(SecretSum):
    """`sum_to`: who learns the sum. With `clients` the helper makes the next model and seals it for them.
    `helper_timeout`: seconds to wait for a helper's answer."""

    sum_to: Literal["server", "clients"]
    clip: Annotated[float, Field(gt=0, le=1e6)]
    bits: Annotated[int, Field(ge=4, le=32)]
    helper_timeout: Annotated[float, Field(gt=0)]

    free_keys = frozenset({"helper_timeout"})

    @property
    @abstractmethod
    def numbers(self) -> FixedPoint:
        """How values become whole numbers."""

    @abstractmethod
    def carrier(self, numbers: FixedPoint) -> Carrier:
        """How these travel."""

    def numbers_in(self, config: Config) -> FixedPoint:
        """How values become whole numbers in a run of this config."""
        return self.numbers.of(self.level_bits(config))

    @property
    def helper_sites(self) -> int:
        return 1

    @property
    def keeps_state(self) -> bool:  # type: ignore[override]
        """Clients note which version of a sealed model they have seen."""
        return not self.model_at_server

    @property
    def model_at_server(self) -> bool:
        return self.sum_to == "server"

    def reply_bytes(self, parts: Parts) -> int:
        return WIDEST * bytes_of(parts.model)

    def conflicts(self, config: Config, parts: Parts) -> None:
        super().conflicts(config, parts)
        if self.model_at_server:
            return
        optimizer, section = config.strategy.server_optimizer, f"{self.setting} with sum_to=clients"
        what = {
            f"strategy.server_optimizer={optimizer}": not _is_plain_step(optimizer),
            f"server_lr._target_={config.server_lr['_target_']}": not _is_constant(config),
            f"federation.result={config.federation.result}": config.federation.result != "last",
            f"data.test_path={config.data.get('test_path')}": config.data.get("test_path") is not None,
            f"compression._target_={config.compression['_target_']}": self.level_bits(config) is not None,
        }
        for setting, is_wrong in what.items():
            if is_wrong:
                raise ConfigError(
                    f"{setting}: needs the model at the server, and under {section} the server has none; take"
                    " strategy=fedavg with a server learning rate of 1, server_lr constant, federation.result=last, no"
                    " test data at the server and compression=none, or sum_to=server"
                )
        if not parts.is_whole:
            raise ConfigError(f"federation/personal: does not go with {section}; use federation/personal=none")
        if not config.federation.deliver:
            raise ConfigError(
                f"federation.deliver=false: under {section} only the clients have the model; set it to true, so that"
                " they store the run's result"
            )

    def sealed_sha256(self, model: State) -> str | None:
        """As the helper says."""
        return about_of(model).model if is_sealed(model) else None

    def server(self, config: Config, parts: Parts, steps: UpdateSteps) -> HelperServer:
        return HelperServer(
            self.carrier(self.numbers_in(config)),
            self._reading(config, parts),
            self.maths(config),
            wanted=self.helper_sites,
            timeout=self.helper_timeout,
            to_clients=not self.model_at_server,
            steps=steps,
        )

    def client(self, config: Config, parts: Parts, limits: OwnLimits) -> HelperClient:
        """On a device, and where a helper is pinned, server and other sites may lie."""
        pinned = read_helpers(limits.helper) if limits.helper is not None else None
        if limits.of_device and pinned is None:
            raise ConfigError(
                f"helper: {self.setting} needs the helper's public key in this site's node-config (helper, or"
                " scripts/deploy/supernode --helper): without it a server could be the helper itself"
            )
        if pinned is not None and limits.signing_key is None:
            raise ConfigError(
                "signing-key: under secure aggregation a device signs, and its node-config must name the file of its"
                " own key (scripts/deploy/supernode does)"
            )
        if pinned is not None and len(pinned) != self.helper_sites:
            raise ConfigError(
                f"helper: this site pins {len(pinned)} helpers, the run has {self.helper_sites}; all that are pinned"
                " must take part, and no others"
            )
        identity = read_identity(limits.signing_key) if pinned is not None and limits.signing_key is not None else None
        seen = NotedFile(limits.keep, SEEN_FILE) if pinned is not None and limits.keep is not None else None
        return HelperClient(
            self.numbers_in(config),
            self.carrier(self.numbers_in(config)),
            self.metric_ranges(config, parts),
            seed=config.run.seed,
            config_sha256=self.maths(config),
            helpers=self.helper_sites,
            identity=identity,
            pinned=pinned,
            min_cohort=max(2, limits.min_cohort or 0),
            opener=None if self.model_at_server else ModelOpener(self.maths(config), identity, pinned, seen),
        )

    def helper(self, config: Config, parts: Parts, limits: OwnLimits, folder: Path | None) -> HelperSite:
        """With `peers` its tags are theirs alone; a helper that is no simulation's needs them, and a key."""
        peers = read_peers(limits.peers) if limits.peers is not None else None
        if peers is not None and (limits.signing_key is None or limits.keep is None):
            raise ConfigError(
                "signing-key, keep-path: a helper site signs its keys, and notes for which models it has removed masks;"
                " its node-config must name both (scripts/deploy/supernode --role helper does)"
            )
        if peers is None and limits.of_helper:
            raise ConfigError(
                "peers: a helper site needs the public keys of the sites whose updates it helps to sum (node-config"
                " peers, or --peers): without them a server could invent the rest of a cohort"
            )
        identity = read_identity(limits.signing_key) if peers is not None and limits.signing_key is not None else None
        sha256 = self.maths(config)
        noted = NotedFile(limits.keep, FILE) if peers is not None and limits.keep is not None else None
        most = limits.max_disk_mb << 20 if limits.max_disk_mb is not None else None
        if most is not None and not self.model_at_server and 2 * bytes_of(parts.model) + ABOUT_BYTES > most:
            raise ConfigError(
                f"{self.setting}, sum_to=clients: this helper would store more than its operator allows (node-config"
                " max-disk-mb)"
            )
        keeper = ModelKeeper(
            self._reading(config, parts),
            steps_of(config),
            RunStore(folder, most),
            sha256,
            identity=identity,
            peers=peers,
        )
        return HelperSite(
            self.carrier(self.numbers_in(config)),
            sha256,
            Released(noted),
            identity=identity,
            peers=peers,
            min_cohort=max(2, limits.min_cohort or 0),
            keeper=None if self.model_at_server else keeper,
            most_values=sum(v.numel() for v in steps_of(config).template(parts.model.state_dict()).values())
            + keeper.reading.entries,
        )

    def _reading(self, config: Config, parts: Parts) -> SumReading:
        return SumReading(self.numbers_in(config), self.metric_ranges(config, parts), self.lowest_values(parts))


def _is_plain_step(optimizer: object) -> bool:
    """Whether a server's step adds the mean update as it is."""
    node = dict(optimizer) if isinstance(optimizer, dict) else {}
    plain = {"momentum": 0, "weight_decay": 0, "dampening": 0, "nesterov": False, "maximize": False}
    extra = {key: value for key, value in node.items() if key not in ("_target_", "_partial_", "lr")}
    named = str(node.get("_target_", "")).endswith("optim.SGD") and float(node.get("lr", 0)) == 1.0
    return named and all(plain.get(key, object()) == value for key, value in extra.items())


def _is_constant(config: Config) -> bool:
    node = config.server_lr
    return str(node["_target_"]).endswith("ConstantLR") and node.get("factor") == 1.0
