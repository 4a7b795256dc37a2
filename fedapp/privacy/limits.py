"""What the operator of a SuperNode decides, in its node-config: no server can change it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fedapp.common.errors import ConfigError, NodeConfigError

__all__ = ["HELPER", "LARGEST_DELTA", "OwnLimits", "is_helper", "own_limits", "whole_limit"]

NodeConfig = Mapping[str, bool | int | float | str]

HELPER = "helper"  # of `role`
LARGEST_DELTA = 1e-5
KEYS = ("ledger-path", "max-epsilon", "round-counts-to")
MAX_EPSILON = 8.0
HONEST_SHARE = 0.9
# A fixed unit: who may choose several finds the exact count from several roundings of it.
ROUND_COUNTS_TO = 10


@dataclass(frozen=True)
class OwnLimits:
    """`max_epsilon`: what each client may spend. `round_counts_to`: the unit in which counts leave it. Both are None in
    a simulation, whose config decides. `ledger`: the file in which what was spent is kept. `keys`: which settings its
    operator has given about privacy. `max_seconds`: how long a client may train in a round. `min_cohort`: it
    takes part in secure aggregation only, and in no sum over fewer clients. `signing_key`, `peers`: the file of this
    device's own key, and the folder with the public keys of those that may be in a cohort with it. `weights`: the
    folder of the files of pretrained weights that a config may name. `max_steps`: of one training. `max_model_mb`: how
    large a model it loads. `keep`: the folder in which it stores what lasts. `helper`: the public key, or a folder of
    them, of the helper sites that it accepts. `of_helper`: this is no client, but a helper site. `max_disk_mb`: what
    runs and features may fill of `keep`. `honest_share`: of the clients in a sum, how many its operator takes to add
    their noise."""

    max_epsilon: float | None = None
    round_counts_to: int | None = None
    ledger: Path | None = None
    keys: tuple[str, ...] = ()
    max_seconds: float | None = None
    min_cohort: int | None = None
    signing_key: Path | None = None
    peers: Path | None = None
    weights: Path | None = None
    max_steps: int | None = None
    max_model_mb: int | None = None
    keep: Path | None = None
    helper: Path | None = None
    of_helper: bool = False
    max_disk_mb: int | None = None
    honest_share: float = HONEST_SHARE

    @property
    def asks_for_secure_aggregation(self) -> bool:
        return self.min_cohort is not None or self.peers is not None or self.helper is not None

    def check(self, *, sums: tuple[bool, int], spends: bool) -> None:
        """Raise ConfigError for a run that does not give what the operator asks for, whatever its options are called:
        `sums`, whether the server sees single updates, and by how many helpers; `spends`, whether clients pay."""
        individual_updates, helper_sites = sums
        if self.asks_for_secure_aggregation and individual_updates:
            raise ConfigError(
                "secure_aggregation: this SuperNode's operator asks for secure aggregation (node-config min-cohort,"
                " peers or helper), and this run's protocol shows the server single updates; use"
                " secure_aggregation=secaggplus, or one through a helper"
            )
        if self.helper is not None and not helper_sites:
            # In another protocol the server could invent the rest of a cohort, or sum one model in both, over others.
            raise ConfigError(
                "secure_aggregation: this SuperNode's operator has pinned a helper (node-config helper), and this run's"
                " sums go through none; use secure_aggregation=helper, bfv or paillier"
            )
        if self.keys and not spends:
            raise ConfigError(
                f"privacy: this SuperNode's operator asks for privacy ({', '.join(self.keys)}); use privacy=dp_sgd"
            )

    @property
    def of_device(self) -> bool:
        """Whether an operator answers for the data, and not a simulation's config."""
        return self.max_epsilon is not None


def own_limits(node_config: NodeConfig) -> OwnLimits:
    """Raises NodeConfigError for what is no limit, and for limits on data that the server deals out."""
    keys = tuple(key for key in KEYS if key in node_config)
    max_seconds = _number(node_config, "max-seconds", 0) if "max-seconds" in node_config else None
    anywhere = OwnLimits(
        max_seconds=max_seconds,
        min_cohort=whole_limit(node_config, "min-cohort", 2),
        signing_key=_absolute(node_config, "signing-key"),
        peers=_absolute(node_config, "peers"),
        weights=_absolute(node_config, "weights-dir"),
        keep=_absolute(node_config, "keep-path"),
        helper=_absolute(node_config, "helper"),
        of_helper=is_helper(node_config),
        max_steps=whole_limit(node_config, "max-steps", 1),
        max_model_mb=whole_limit(node_config, "max-model-mb", 1),
        max_disk_mb=whole_limit(node_config, "max-disk-mb", 1),
        honest_share=_number(node_config, "honest-share", HONEST_SHARE),
    )
    if anywhere.honest_share > 1:
        raise NodeConfigError(f"node-config honest-share={anywhere.honest_share:g}: must be a share, 1 at most")
    if anywhere.min_cohort is not None and anywhere.peers is None and anywhere.helper is None:
        raise NodeConfigError(
            "node-config min-cohort: needs peers, the folder with the public keys of the other sites (--peers), or the"
            " key of a helper that has them (--helper): without either a server could invent the rest of a cohort"
        )
    if "data-path" not in node_config:
        if keys:
            raise NodeConfigError(
                f"node-config {', '.join(keys)}: for a device with data of its own (data-path); in a simulation the"
                " config decides who has which data, so nothing can be promised of it"
            )
        return anywhere
    unit = _number(node_config, "round-counts-to", ROUND_COUNTS_TO)
    if unit != int(unit):
        raise NodeConfigError(f"node-config round-counts-to={unit}: must be a whole number")
    max_epsilon = _number(node_config, "max-epsilon", MAX_EPSILON)
    ledger = _ledger(node_config)
    return replace(anywhere, max_epsilon=max_epsilon, round_counts_to=int(unit), ledger=ledger, keys=keys)


def is_helper(node_config: NodeConfig) -> bool:
    """Whether this SuperNode is a helper site. Raises NodeConfigError for another role, and for one with data."""
    role = node_config.get("role")
    if role is None:
        return False
    if role != HELPER:
        raise NodeConfigError(f"node-config role={role}: must be {HELPER}, or be left out")
    if "data-path" in node_config:
        raise NodeConfigError("node-config role: a helper site has no data of its own (data-path)")
    return True


def whole_limit(node_config: NodeConfig, key: str, least: int) -> int | None:
    """None where the operator has not set it. Raises NodeConfigError."""
    if key not in node_config:
        return None
    number = _number(node_config, key, least)
    if number != int(number) or number < least:
        raise NodeConfigError(f"node-config {key}={number:g}: must be a whole number, {least} or more")
    return int(number)


def _absolute(node_config: NodeConfig, key: str) -> Path | None:
    given = node_config.get(key)
    if given is None:
        return None
    if not isinstance(given, str) or not Path(given).expanduser().is_absolute():
        raise NodeConfigError(f"node-config {key}={given}: must be an absolute path")
    return Path(given).expanduser()


def _ledger(node_config: NodeConfig) -> Path | None:
    given = node_config.get("ledger-path")
    if given is None:
        return None
    if not isinstance(given, str) or not Path(given).expanduser().is_absolute():
        raise NodeConfigError(
            f"node-config ledger-path={given}: must be an absolute path, lest another folder begins anew"
        )
    return Path(given).expanduser()


def _number(node_config: NodeConfig, key: str, default: float) -> float:
    given = node_config.get(key, default)
    try:
        if 0 < (found := float(given)) < float("inf"):
            return found
    except ValueError:
        pass
    raise NodeConfigError(f"node-config {key}={given}: must be a number greater than 0")
