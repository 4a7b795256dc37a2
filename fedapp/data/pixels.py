"""A decoded image as a tensor."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fedapp.data.source import Scaling

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["PIXEL_SCALING", "to_pixels"]

PIXEL_SCALING = Scaling("fixed", offset=0.0, scale=255.0)  # 0..255 to 0..1


def to_pixels(image: "Image", size: int, channels: int) -> Tensor:
    """`image` as (channels, size, size) uint8: turned upright, converted to grey (1 channel) or RGB (3), and resized
    to a square whatever its proportions. Raises ValueError for more than 8 bits a channel, which would be clipped.
    """
    from PIL import Image, ImageOps

    if image.mode.startswith(("I", "F")):
        raise ValueError(f"it has more than 8 bits a channel (mode {image.mode}). Convert it to 8 bits")
    ImageOps.exif_transpose(image, in_place=True)
    image = image.convert("RGB" if channels == 3 else "L")
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    array = torch.from_numpy(np.array(image))  # (H, W) or (H, W, 3)
    return array.permute(2, 0, 1) if channels == 3 else array.unsqueeze(0)
