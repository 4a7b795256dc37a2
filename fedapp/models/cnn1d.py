"""A small convolutional network for windows of series."""

from typing import Literal

from torch import Tensor, nn

from fedapp.common.errors import ConfigError
from fedapp.data.source import Schema
from fedapp.models.fit import check_choice, check_sizes
from fedapp.models.normalization import group_norm

__all__ = ["cnn1d"]


class Steps(nn.Module):
    """(B, features x steps) to (B, features, steps)."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), -1, self.steps)


def cnn1d(
    schema: Schema,
    *,
    channels: list[int],
    kernel_size: int,
    hidden: int | None,
    norm: Literal["none", "group"],
    groups: int,
) -> nn.Module:
    """(B, features x steps) to (B, num_outputs): convolutions over time with ReLU, halving the steps while there are
    four or more, then one or two linear layers. Raises ConfigError for data without steps, and bad values."""
    check_sizes("model.channels", channels)
    check_choice("model.norm", norm, ("none", "group"))
    if type(kernel_size) is not int or kernel_size < 1 or kernel_size % 2 == 0:
        raise ConfigError(f"model.kernel_size={kernel_size}: must be an odd positive integer, e.g. 3")
    if not schema.steps:
        raise ConfigError("model=cnn1d: takes windows of series, which data=series makes. Choose it, or model=mlp")
    steps, width = schema.steps, schema.input_shape[0] // schema.steps
    layers: list[nn.Module] = [Steps(steps)]
    for filters in channels:
        layers.append(nn.Conv1d(width, filters, kernel_size, padding=kernel_size // 2))
        if norm == "group":
            layers.append(group_norm(filters, groups))
        layers.append(nn.ReLU())
        if steps >= 4:
            layers.append(nn.MaxPool1d(2))
            steps //= 2
        width = filters
    layers.append(nn.Flatten())
    if hidden is not None:
        check_sizes("model.hidden", [hidden])
        layers += [nn.Linear(width * steps, hidden), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(hidden, schema.num_outputs))
    return nn.Sequential(*layers, nn.Linear(width * steps, schema.num_outputs))
