"""Multi-layer perceptron."""

from math import prod

from torch import nn

from fedapp.common.errors import ConfigError
from fedapp.data.source import Schema
from fedapp.models.fit import check_sizes

__all__ = ["mlp"]


def mlp(schema: Schema, *, hidden: list[int], dropout: float) -> nn.Module:
    """(B, *input_shape) to (B, num_outputs) through hidden layers with ReLU, and dropout after each.

    `hidden=[200, 200]` on 28 x 28 images of ten classes is the 2NN of McMahan et al., "Communication-Efficient
    Learning of Deep Networks from Decentralized Data" (AISTATS 2017), with 199,210 parameters.
    Raises ConfigError for a width below 1 or a dropout outside [0, 1).
    """
    check_sizes("model.hidden", hidden)
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise ConfigError(f"model.dropout={dropout}: must be a share of at least 0 and below 1, e.g. 0.2")
    layers: list[nn.Module] = [nn.Flatten()]
    width = prod(schema.input_shape)
    for units in hidden:
        layers += [nn.Linear(width, units), nn.ReLU()]
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
        width = units
    return nn.Sequential(*layers, nn.Linear(width, schema.num_outputs))
