"""Image files on a disk: finding and decoding them."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fedapp.common.errors import DataError
from fedapp.data.dicom import DICOM_ENDINGS, check_dicom_reader, is_dicom, read_dicom
from fedapp.data.leavings import entries
from fedapp.data.pixels import GreyRange, highest_grey, to_pixels

__all__ = ["IMAGE_ENDINGS", "DecodedImages", "Reading", "check_image", "decode", "images_in"]

log = logging.getLogger("flwr")

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".jp2", ".j2k", *DICOM_ENDINGS)


@dataclass(frozen=True)
class Reading:
    """How files become (channels, size, size) uint8. `skip`: leave out what cannot be read, rather than raise."""

    size: int
    channels: int
    grey_range: GreyRange = None
    skip: bool = False


@dataclass(frozen=True)
class DecodedImages:
    """Images (n, channels, size, size) uint8, which of the files they are of, and why others are left out. `highest` is
    the highest grey in images of more than 8 bits; None: there are none."""

    pixels: Tensor
    kept: list[int]
    faults: list[str]
    highest: float | None


def check_image(path: Path, where: str) -> Path:
    """`path`, if it is called as an image is; else a DataError that says what belongs `where`."""
    if path.is_dir() or (path.suffix.lower() not in IMAGE_ENDINGS and not is_dicom(path)):
        deeper = path.is_dir() and any(one.suffix.lower() in IMAGE_ENDINGS for one in path.iterdir())
        hint = ". If the folders above it are sites, set data.layout='{site}/{class}/*'" if deeper else ""
        raise DataError(f"{path}: no image. {where} holds nothing but files named *{' *'.join(IMAGE_ENDINGS)}{hint}")
    return path


def decode(files: list[Path], reading: Reading) -> DecodedImages:
    """Raises DataError, opening with the file, for what cannot be read, unless that is skipped and some can."""
    pixels = torch.empty((len(files), reading.channels, reading.size, reading.size), dtype=torch.uint8)
    kept: list[int] = []
    faults: list[str] = []
    highest: list[float] = []
    for at, path in enumerate(files):
        try:
            pixels[len(kept)], deep = _decoded(path, reading)
        except DataError:
            raise
        except Exception as error:  # Pillow's decoders raise whatever their format's parser does
            fault = f"{path}: cannot be used as an image: {error}"
            if not reading.skip:
                raise DataError(f"{fault}. Mend or remove it, or set data.unreadable=skip") from error
            faults.append(fault)
            continue
        kept.append(at)
        highest += [] if deep is None else [deep]
    if faults:
        log.warning("%d of %d images are left out: %s", len(faults), len(files), "; ".join(faults[:5]))
    if not kept and faults:
        raise DataError(f"{faults[0]}; and none of the {len(files)} images can be read")
    return DecodedImages(pixels[: len(kept)], kept, faults, max(highest, default=None))


def _decoded(path: Path, reading: Reading) -> tuple[Tensor, float | None]:
    from PIL import Image

    if is_dicom(path):
        check_dicom_reader(path)
        image = read_dicom(path, reading.grey_range)
        return to_pixels(image, reading.size, reading.channels), None
    with Image.open(path) as image:
        return to_pixels(image, reading.size, reading.channels, reading.grey_range), highest_grey(image)


def images_in(path: Path, reading: Reading) -> tuple[Tensor, list[str]]:
    """One image file, or every image below a folder: (n, channels, size, size) uint8, and the path of each.

    Sub-folders are searched and mean nothing. Raises DataError for whatever is no image, hidden files excepted.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    files = list(_below(path)) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: no images; they are named *{' *'.join(IMAGE_ENDINGS)}")
    found = decode(files, reading)
    return found.pixels, [str(files[at]) for at in found.kept]


def _below(folder: Path) -> Iterator[Path]:
    for entry in entries(folder):
        if entry.is_dir():
            yield from _below(entry)
        else:
            yield check_image(entry, "A folder of images")
