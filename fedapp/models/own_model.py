"""Models that clients keep for themselves, whole, beside the global one: never sent, and trained on their own data."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from fedapp.common.errors import ConfigError
from fedapp.models.personal import OwnModel, Personal

__all__ = ["Ditto", "FineTuned"]


@dataclass(frozen=True)
class _BesideGlobal(Personal):
    whole = True

    def mark(self, model: nn.Module) -> None:
        """Nothing of the global model is: all of it is federated."""

    def conflicts(self, config: Any, parts: Any) -> None:
        if not config.federation.final_evaluation:
            raise ConfigError(
                "federation.personal: clients judge their own models in the final evaluation, which"
                " federation.final_evaluation=false leaves out; set it to true"
            )


@dataclass(frozen=True)
class FineTuned(_BesideGlobal):
    """federation.personal=finetune: at the end each client trains the global model on for `epochs` epochs (Yu et al.,
    "Salvaging Federated Learning by Local Adaptation", 2020). With `mu` it is held near the global model by
    mu/2 |w - w_global|^2. Raises ConfigError for bad values."""

    epochs: int = 5
    mu: float = 0.0
    lr_factor: float = 1.0

    def __post_init__(self) -> None:
        _check("epochs", self.epochs, self.epochs >= 1, "at least 1")
        _check("mu", self.mu, self.mu >= 0, "0 or more")
        _check("lr_factor", self.lr_factor, self.lr_factor > 0, "greater than 0")

    @property
    def own(self) -> OwnModel:
        return OwnModel(every_round=False, epochs=self.epochs, mu=self.mu, lr_factor=self.lr_factor)


@dataclass(frozen=True)
class Ditto(_BesideGlobal):
    """federation.personal=ditto: in each round a client trains the global model as ever, and then its own one for
    `epochs` epochs, held near the global one by mu/2 |w - w_global|^2 (Li et al., "Ditto: Fair and Robust Federated
    Learning Through Personalization", ICML 2021; mu is their lambda). Raises ConfigError for bad values."""

    epochs: int = 1
    mu: float = 0.1

    def __post_init__(self) -> None:
        _check("epochs", self.epochs, self.epochs >= 1, "at least 1")
        _check("mu", self.mu, self.mu >= 0, "0 or more")

    @property
    def own(self) -> OwnModel:
        return OwnModel(every_round=True, epochs=self.epochs, mu=self.mu)


def _check(key: str, value: float, holds: bool, right: str) -> None:
    if not holds:
        raise ConfigError(f"federation.personal.{key}={value}: must be {right}")
