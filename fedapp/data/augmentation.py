"""Random changes to images that leave their class as it is, drawn anew for every example and epoch."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from fedapp.common.errors import ConfigError
from fedapp.data.checks import known
from fedapp.data.source import Schema

__all__ = ["CHANGES", "Augmentation", "augmentation"]

Augmentation = Callable[[Tensor], Tensor]  # (B, C, H, W) to the same


def horizontal_flip(images: Tensor) -> Tensor:
    """Every second image, mirrored left to right."""
    return torch.where(_half(images), images.flip(3), images)


def vertical_flip(images: Tensor) -> Tensor:
    """Every second image, upside down."""
    return torch.where(_half(images), images.flip(2), images)


def quarter_turns(images: Tensor) -> Tensor:
    """Each image, turned by 0, 90, 180 or 270 degrees."""
    turns = torch.randint(4, (len(images), 1, 1, 1))
    for number in (1, 2, 3):
        images = torch.where((turns == number).to(images.device), images.rot90(number, (2, 3)), images)
    return images


def shift(images: Tensor) -> Tensor:
    """Each image, moved by up to an eighth of its sides; what comes in at an edge repeats the edge."""
    height, width = images.shape[2:]
    down, right = max(1, height // 8), max(1, width // 8)
    # Not every device pads integers; a pixel's value survives float32.
    padded = functional.pad(images.float(), (right, right, down, down), mode="replicate").to(images.dtype)
    rows = torch.randint(2 * down + 1, (len(images), 1)) + torch.arange(height)  # (B, H)
    columns = torch.randint(2 * right + 1, (len(images), 1)) + torch.arange(width)  # (B, W)
    examples = torch.arange(len(images))[:, None, None]
    return padded.permute(0, 2, 3, 1)[examples, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


CHANGES: dict[str, Augmentation] = {
    change.__name__: change for change in (horizontal_flip, vertical_flip, quarter_turns, shift)
}


def augmentation(names: Sequence[str], schema: Schema) -> Augmentation | None:
    """The changes of these names, one after the other; None for none. They draw from torch's global generator. Raises
    ConfigError for an unknown name, and for examples that are no images."""
    for name in names:
        if name not in CHANGES:
            raise ConfigError(f"train.augmentation: {name!r} is not known; known: {known(list(CHANGES))}")
    if len(set(names)) < len(names):
        raise ConfigError(f"train.augmentation=[{','.join(names)}]: names one of them twice")
    if names and len(schema.input_shape) != 3:
        raise ConfigError(f"train.augmentation=[{','.join(names)}]: is for images, and these examples are none")
    if "quarter_turns" in names and schema.input_shape[1] != schema.input_shape[2]:
        raise ConfigError("train.augmentation: quarter_turns needs images that are square")

    def augment(images: Tensor) -> Tensor:
        for name in names:
            images = CHANGES[name](images)
        return images

    return augment if names else None


def _half(images: Tensor) -> Tensor:
    """A fair coin for each image, (B, 1, 1, 1)."""
    return (torch.rand(len(images), 1, 1, 1) < 0.5).to(images.device)
