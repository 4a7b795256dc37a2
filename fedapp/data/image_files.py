"""Image files on a disk: finding and decoding them."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from fedapp.common.errors import DataError
from fedapp.data.leavings import entries
from fedapp.data.pixels import to_pixels

__all__ = ["IMAGE_ENDINGS", "check_image", "decode", "images_in"]

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")


def check_image(path: Path, where: str) -> Path:
    """`path`, if it is called as an image is; else a DataError that says what belongs `where`."""
    if path.is_dir() or path.suffix.lower() not in IMAGE_ENDINGS:
        raise DataError(f"{path}: no image. {where} holds nothing but files named *{' *'.join(IMAGE_ENDINGS)}")
    return path


def decode(files: list[Path], size: int, channels: int) -> Tensor:
    """The images of `files` as (n, channels, size, size) uint8. Raises DataError, opening with the file."""
    from PIL import Image

    pixels = torch.empty((len(files), channels, size, size), dtype=torch.uint8)
    for at, path in enumerate(files):
        try:
            with Image.open(path) as image:
                pixels[at] = to_pixels(image, size, channels)
        except Exception as error:  # Pillow's decoders raise whatever their format's parser does
            raise DataError(f"{path}: cannot be used as an image: {error}") from error
    return pixels


def images_in(path: Path, size: int, channels: int) -> tuple[Tensor, list[str]]:
    """One image file, or every image below a folder: (n, channels, size, size) uint8, and the path of each.

    Sub-folders are searched and mean nothing. Raises DataError for whatever is no image, hidden files excepted.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    files = list(_below(path)) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: no images; they are named *{' *'.join(IMAGE_ENDINGS)}")
    return decode(files, size, channels), [str(file) for file in files]


def _below(folder: Path) -> Iterator[Path]:
    for entry in entries(folder):
        if entry.is_dir():
            yield from _below(entry)
        else:
            yield check_image(entry, "A folder of images")
