"""federation.personal=norm: each client keeps its own normalisation layers."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from fedapp.common.errors import ConfigError
from fedapp.models.personal import Personal, check_something_shared
from fedapp.models.shared_state import make_personal

__all__ = ["PersonalNorms"]

NORMS = (
    *(nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm),
    nn.modules.instancenorm._InstanceNorm,
)


@dataclass(frozen=True)
class PersonalNorms(Personal):
    """Scales, shifts and statistics of all normalisation layers stay with the client (FedBN, Li et al. 2021, who keep
    BatchNorm's; here GroupNorm's and LayerNorm's, too)."""

    whole = False

    def mark(self, model: nn.Module) -> None:
        """Raises ConfigError where there is no such layer with something to keep."""
        norms = [module for module in model.modules() if isinstance(module, NORMS) and module.state_dict()]
        if not norms:
            raise ConfigError(
                "federation.personal=norm: this model has no normalisation layer that is trained; take one that has,"
                " such as model=cnn or model=cnn1d"
            )
        for module in norms:
            make_personal(module)

    def conflicts(self, config: Any, parts: Any) -> None:
        check_something_shared(
            parts.model,
            "federation.personal=norm: of this model nothing but normalisation is trained, so nothing is left to"
            " federate",
        )
