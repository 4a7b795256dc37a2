"""federation.personal: what each client has of its own, trained there and never sent: a part of the model, or a whole
one beside it (`own_model.py`)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from fedapp.common.errors import ConfigError
from fedapp.models.shared_state import aliases, make_personal, shared_state
from fedapp.models.transfer import last_linear

__all__ = ["AllShared", "OwnModel", "Personal", "PersonalHead", "check_something_shared"]


@dataclass(frozen=True)
class OwnModel:
    """A whole model of each client, held near the global one by mu/2 |w - w_global|^2. `every_round`: it is trained in
    each round of the client, from where it was; else once, at the end, from the global model."""

    every_round: bool
    epochs: int
    mu: float
    lr_factor: float = 1.0


@dataclass(frozen=True)
class Personal:
    """`whole`: the server has a whole trained model. Clients with a part of their own make it whole only there."""

    whole: ClassVar[bool]

    @property
    def own(self) -> OwnModel | None:
        """How each client trains a model of its own beside the global one; None where it has none."""
        return None

    def mark(self, model: nn.Module) -> None:
        """Mark, in the trained part of a model, what is personal. Raises ConfigError where it has no such part."""
        raise NotImplementedError

    def conflicts(self, config: Any, parts: Any) -> None:
        """Raise ConfigError for a config (`config.schema.Config`) or parts (`learning.build.Parts`) that do not go with
        this."""


@dataclass(frozen=True)
class AllShared(Personal):
    """federation.personal=none: the whole model is federated."""

    whole = True

    def mark(self, model: nn.Module) -> None:
        """Nothing is."""


@dataclass(frozen=True)
class PersonalHead(Personal):
    """federation.personal=head: the last layer (FedPer, Arivazhagan et al. 2019)."""

    whole = False

    def mark(self, model: nn.Module) -> None:
        name, head = last_linear(model)
        if not any(parameter.requires_grad for parameter in head.parameters()):
            raise ConfigError(
                "federation.personal=head: the head of this model is frozen (model.trainable), so there is nothing of"
                " its own to train; choose federation.personal=finetune"
            )
        if aliases(model) & {f"{name}.weight", f"{name}.bias"}:
            raise ConfigError(
                "federation.personal=head: the head of this model has the weight of another layer, which is federated;"
                " untie them (model.tied=false), or choose federation.personal=finetune"
            )
        make_personal(head)

    def conflicts(self, config: Any, parts: Any) -> None:
        if config.train.logit_adjustment:
            raise ConfigError(
                f"train.logit_adjustment={config.train.logit_adjustment:g}: keeps out of a head what a client's own is"
                " there to learn; set it to 0, or choose federation.personal=none, finetune or ditto"
            )
        check_something_shared(
            parts.model,
            "federation.personal=head: of this model nothing but its head is trained, so nothing is left to"
            " federate; take a larger model, or model.trainable=last_k, lora or full",
        )


def check_something_shared(model: nn.Module, otherwise: str) -> None:
    """Raises ConfigError, with that text, for a model of which nothing that is trained travels."""
    shared, parameters = shared_state(model), model.named_parameters()
    if not any(name in shared for name, parameter in parameters if parameter.requires_grad):
        raise ConfigError(otherwise)
