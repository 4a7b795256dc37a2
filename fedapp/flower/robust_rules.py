"""The arithmetic of Flower's robust strategies: the trimmed mean of arrays, and Multi-Krum's choice of replies.

Needs `flwr.serverapp.strategy.fedtrimmedavg.trim_mean` and `flwr.serverapp.strategy.multikrum.select_multikrum` (flwr
1.41, 1.42). Where they are gone, only the strategies that use them fail.
"""

from typing import Any

from fedapp.common.errors import FederationError
from fedapp.flower.names import warn_once

__all__ = ["select_multikrum", "trim_mean"]


def _missing(*_: object, **__: object) -> Any:
    raise FederationError("strategy.aggregation: needs the robust strategies of flwr >=1.41,<1.43; use strategy=median")


try:
    from flwr.serverapp.strategy.fedtrimmedavg import trim_mean
    from flwr.serverapp.strategy.multikrum import select_multikrum
except ImportError:
    warn_once("flwr.serverapp.strategy", "strategy=trimmed_mean, krum and multi_krum fail")
    trim_mean = select_multikrum = _missing
