"""A decoded image as a tensor."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fedapp.data.source import Scaling

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["PIXEL_SCALING", "GreyRange", "highest_grey", "to_pixels"]

PIXEL_SCALING = Scaling("fixed", offset=0.0, scale=255.0)  # 0..255 to 0..1
GreyRange = tuple[float, float] | None
SIXTEEN_BITS = (0.0, 65535.0)


def to_pixels(image: "Image", size: int, channels: int, grey_range: GreyRange = None) -> Tensor:
    """`image` as (channels, size, size) uint8: turned upright, converted to grey (1 channel) or RGB (3), and resized
    to a square whatever its proportions. What is transparent becomes white.

    Greys of more than 8 bits are mapped to 0..255 from `grey_range`, by default from all that 16 bits can hold. Raises
    ValueError for greys outside of 16 bits without a range.
    """
    from PIL import Image, ImageOps

    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image, grey_range)
    elif image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB" if channels == 3 else "L")
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    array = torch.from_numpy(np.array(image))  # (H, W) or (H, W, 3)
    return array.permute(2, 0, 1) if channels == 3 else array.unsqueeze(0)


def highest_grey(image: "Image") -> float | None:
    """The highest grey of an image of more than 8 bits; None for all others."""
    return float(np.asarray(image).max()) if image.mode.startswith(("I", "F")) else None


def _eight_bits(image: "Image", grey_range: GreyRange) -> "Image":
    from PIL import Image

    greys = np.asarray(image).astype(np.float64)
    low, high = grey_range or SIXTEEN_BITS
    if not np.isfinite(greys).all():
        raise ValueError("it holds greys that are no finite number")
    outside = greys.min() < low or greys.max() > high
    if grey_range is None and (outside or image.mode == "F"):
        raise ValueError(
            f"its greys are {greys.min():g} to {greys.max():g} (mode {image.mode}). Set data.grey_range=[LOW,HIGH] to"
            " what is black and white"
        )
    scaled = np.clip((greys - low) / (high - low), 0, 1) * 255
    return Image.fromarray(np.rint(scaled).astype(np.uint8))
