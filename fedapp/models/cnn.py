"""A small convolutional network for images of any size."""

from collections import OrderedDict
from math import ceil
from typing import Literal

from torch import nn

from fedapp.common.errors import ConfigError
from fedapp.data.source import Schema
from fedapp.models.fit import check_choice, check_sizes, image_shape
from fedapp.models.normalization import group_norm

__all__ = ["cnn"]

# Features of at most this many rows and columns reach the head, which so stays small for large images.
MAX_SIDE = 8


def cnn(
    schema: Schema,
    *,
    channels: list[int],
    kernel_size: int,
    hidden: int | None,
    norm: Literal["none", "group"],
    groups: int,
) -> nn.Module:
    """(B, C, H, W) to (B, num_outputs): convolutions with ReLU and pooling, then one or two linear layers.

    `channels=[32, 64] kernel_size=5 hidden=512 norm=none` on 28 x 28 images of ten classes is the CNN of McMahan et
    al., "Communication-Efficient Learning of Deep Networks from Decentralized Data" (AISTATS 2017), with
    1,663,370 parameters. Raises ConfigError for examples that are no images, sides below 8 or below
    the kernel's, and values that make no network.
    """
    _check(schema, channels, kernel_size, hidden, norm)
    width, *sides = schema.input_shape
    layers: list[nn.Module] = []
    for filters in channels:
        layers.append(nn.Conv2d(width, filters, kernel_size, padding=kernel_size // 2))
        if norm == "group":
            layers.append(group_norm(filters, groups))
        layers.append(nn.ReLU())
        if min(sides) >= 4:
            layers.append(nn.MaxPool2d(2))
            sides = [side // 2 for side in sides]
        width = filters
    window = [ceil(side / MAX_SIDE) for side in sides]
    if max(window) > 1:
        # A fixed window and not AdaptiveAvgPool2d, whose gradient has no deterministic form on CUDA.
        layers.append(nn.AvgPool2d((window[0], window[1])))
        sides = [side // size for side, size in zip(sides, window, strict=True)]
    head = _head(width * sides[0] * sides[1], hidden, schema.num_outputs)
    return nn.Sequential(OrderedDict(features=nn.Sequential(*layers), head=head))


def _head(width: int, hidden: int | None, outputs: int) -> nn.Sequential:
    """(B, C, H, W) with C * H * W = `width` to (B, `outputs`)."""
    if hidden is None:
        return nn.Sequential(nn.Flatten(), nn.Linear(width, outputs))
    return nn.Sequential(nn.Flatten(), nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def _check(schema: Schema, channels: list[int], kernel_size: int, hidden: int | None, norm: str) -> None:
    check_sizes("model.channels", channels)
    check_choice("model.norm", norm, ("none", "group"))
    if hidden is not None and (type(hidden) is not int or hidden < 1):
        raise ConfigError(f"model.hidden={hidden}: must be a positive integer or null, e.g. model.hidden=64")
    if type(kernel_size) is not int or kernel_size < 1 or kernel_size % 2 == 0:
        raise ConfigError(f"model.kernel_size={kernel_size}: must be an odd positive integer, e.g. 3")
    _, height, width = image_shape(schema, "cnn")
    smallest = max(8, kernel_size)
    if min(height, width) < smallest:
        raise ConfigError(
            f"model=cnn: images of {height} x {width} are too small, with model.kernel_size={kernel_size} they need at"
            f" least {smallest} x {smallest}. Choose model=mlp or a larger data.size=..."
        )
