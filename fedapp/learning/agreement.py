"""What clients and server agree on in the preflight: constants of the model that follow from all clients' data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from fedapp.data.source import Examples, Schema
from fedapp.models.input_layer import InputLayer
from fedapp.models.output_layer import OutputLayer

__all__ = ["Agreement", "of_inputs", "of_targets", "share_columns"]


@dataclass(frozen=True)
class Agreement:
    """`setting` asks for it; `what` of a client's data is told; `remedy` is what to set where that may not leave it.

    `values` makes (n, width) of training examples, whose means and deviations the clients tell. `take` puts those over
    all clients, (width,), into the whole model. `shares`: of each so many
    columns an example has a 1 in one and a 0 in the others; 0: they are no shares.
    """

    setting: str
    what: str
    remedy: str
    width: int
    values: Callable[[Examples], Tensor]
    take: Callable[[nn.Module, Tensor, Tensor], None]
    shares: int = 0


def of_inputs(schema: Schema) -> Agreement:
    """Scaling constants of features."""

    def take(whole: nn.Module, mean: Tensor, std: Tensor) -> None:
        layer = whole.get_submodule("input")
        if isinstance(layer, InputLayer):
            layer.set_statistics(mean, std)

    return Agreement(
        "data.scaling=federated",
        "the means and deviations",
        "data.scaling=published (data=breast_cancer), given or none (data=csv)",
        schema.input_shape[0],
        lambda examples: examples.inputs,
        take,
    )


def of_targets(layer: OutputLayer) -> Agreement:
    """Constants of the output layer."""
    return Agreement(
        layer.setting,
        layer.what,
        layer.remedy,
        layer.width,
        lambda examples: layer.values(examples.targets),
        lambda _, mean, std: layer.set_statistics(mean, std),
        layer.shares,
    )


def share_columns(agreements: Sequence[Agreement]) -> tuple[slice, ...]:
    """Which columns of all agreements' values together are the shares of a whole."""
    found, start = list[slice](), 0
    for agreement in agreements:
        end = start + agreement.width
        if agreement.shares:
            found += [slice(at, at + agreement.shares) for at in range(start, end, agreement.shares)]
        start = end
    return tuple(found)
