"""What the operator of a SuperNode decides about privacy, in its node-config: no server can change it."""

from collections.abc import Mapping
from dataclasses import dataclass

from fedapp.errors import ConfigError

__all__ = ["LARGEST_DELTA", "OwnLimits", "own_limits"]

LARGEST_DELTA = 1e-5
KEYS = ("ledger-path", "max-epsilon", "round-counts-to")
# A fixed unit: who may choose several finds the exact count from several roundings of it.
ROUND_COUNTS_TO = 10


@dataclass(frozen=True)
class OwnLimits:
    """`max_epsilon`: what each client may spend, None for as much as the config says. `round_counts_to`: the unit in
    which counts leave it; None in a simulation, whose config decides. `keys`: which settings its operator has given."""

    max_epsilon: float | None = None
    round_counts_to: int | None = None
    keys: tuple[str, ...] = ()


def own_limits(node_config: Mapping[str, bool | int | float | str]) -> OwnLimits:
    """Raises ConfigError for what is no limit, and for a limit without a ledger of the operator's own to hold it to."""
    keys = tuple(key for key in KEYS if key in node_config)
    if not keys and "data-path" not in node_config:
        return OwnLimits()
    epsilon = _number(node_config, "max-epsilon")
    unit = _number(node_config, "round-counts-to")
    if unit is not None and unit != int(unit):
        raise ConfigError(f"node-config round-counts-to={unit}: must be a whole number")
    if epsilon is not None and "ledger-path" not in keys:
        raise ConfigError("node-config max-epsilon: needs ledger-path, a file where what was spent is kept")
    return OwnLimits(epsilon, int(unit or ROUND_COUNTS_TO), keys)


def _number(node_config: Mapping[str, bool | int | float | str], key: str) -> float | None:
    if key not in node_config:
        return None
    given = node_config[key]
    try:
        if 0 < (found := float(given)) < float("inf"):
            return found
    except ValueError:
        pass
    raise ConfigError(f"node-config {key}={given}: must be a number greater than 0")
