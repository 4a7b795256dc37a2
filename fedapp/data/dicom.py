"""DICOM files (NEMA PS3) as images, by pydicom (extra `dicom`)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedapp.common.errors import DataError
from fedapp.data.pixels import GreyRange

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["DICOM_ENDINGS", "check_dicom_reader", "is_dicom", "read_dicom"]

DICOM_ENDINGS = (".dcm", ".dicom")


def is_dicom(path: Path) -> bool:
    """By its ending, or, since many have none, by its content."""
    if path.suffix:
        return path.suffix.lower() in DICOM_ENDINGS
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def check_dicom_reader(path: Path) -> None:
    """Raises DataError, opening with the path, where pydicom is not installed."""
    try:
        import pydicom  # noqa: F401
    except ImportError:
        raise DataError(f"{path}: DICOM images are read by pydicom: pip install 'fedapp[dicom]'") from None


def read_dicom(path: Path, grey_range: GreyRange) -> "Image":
    """One frame as 8 bits: from its window where it has one, else from all that its bits can hold; `grey_range`, in the
    values after rescaling (such as Hounsfield units), comes before both. Raises what pydicom raises, and ValueError."""
    import pydicom
    from PIL import Image
    from pydicom.pixels.processing import convert_color_space

    found = pydicom.dcmread(path)
    pixels = found.pixel_array
    kind = str(found.get("PhotometricInterpretation", "MONOCHROME2"))
    if pixels.ndim == 3 and pixels.shape[-1] == 3:
        rgb = pixels if kind == "RGB" else convert_color_space(pixels, kind, "RGB")
        return Image.fromarray(rgb.astype(np.uint8))
    if pixels.ndim != 2:
        raise ValueError(f"it holds {pixels.shape[0]} frames. Export each as an image of its own")
    slope, intercept = float(found.get("RescaleSlope", 1)), float(found.get("RescaleIntercept", 0))
    low, high = grey_range or _window(found) or _whole(found, slope, intercept)
    greys = np.clip((pixels * slope + intercept - low) / (high - low), 0, 1)
    if kind == "MONOCHROME1":  # the lowest value is white
        greys = 1 - greys
    return Image.fromarray(np.rint(greys * 255).astype(np.uint8))


def _window(found: Any) -> GreyRange:
    center, width = (_first(found.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if center is None or width is None or width <= 0:
        return None
    return center - width / 2, center + width / 2


def _first(value: Any) -> float | None:
    """Of several windows the first is the default."""
    if value is None or value == "":
        return None
    return float(value if isinstance(value, int | float | str) or not hasattr(value, "__iter__") else value[0])


def _whole(found: Any, slope: float, intercept: float) -> tuple[float, float]:
    bits = int(found.BitsStored)
    lowest = -(1 << bits - 1) if int(found.get("PixelRepresentation", 0)) else 0
    ends = [lowest * slope + intercept, (lowest + (1 << bits) - 1) * slope + intercept]
    return min(ends), max(ends)
