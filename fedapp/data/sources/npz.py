"""Images in one .npz file, in the form that MedMNIST (Yang et al. 2023) is published in."""

import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedapp.common.errors import ConfigError, DataError
from fedapp.data.checks import check_fraction, check_size, given_classes, known, names
from fedapp.data.findings import Findings
from fedapp.data.held_out import hold_out
from fedapp.data.image_files import Reading, images_in
from fedapp.data.pixels import PIXEL_SCALING, to_pixels
from fedapp.data.source import DataSource, Examples, Pooled, Schema
from fedapp.data.tables.match import Matcher

__all__ = ["Npz"]


@dataclass(frozen=True)
class Npz(DataSource):
    """`train_images` (n, H, W) or (n, H, W, 3) uint8 with `train_labels` (n,) or (n, 1) whole numbers, `test_images`
    for the server, and `val_images`, which are trained on as well.

    `path` is the file of a simulation; a device names its own in its node-config. `classes` are the label numbers, or
    their names in the order of numbers that begin with 0; None: the numbers found in `path`, and for devices they must
    be given. Without test images `test_fraction` of the others is held out.
    """

    path: str | None = None
    size: int = 28
    channels: int = 1
    classes: Sequence[str | int] | None = None
    test_fraction: float = 0.2
    split_seed: int = 0

    def __post_init__(self) -> None:
        check_fraction(self.test_fraction, "data.test_fraction")
        check_size(self.size, self.channels)
        if self.classes is not None:
            names(self.classes, "data.classes", at_least=2)

    def schema(self) -> Schema:
        return Schema((self.channels, self.size, self.size), self._class_names, scaling=PIXEL_SCALING)

    def pooled(self) -> Pooled:
        if self.path is None:
            raise ConfigError("data.path=null: a simulation needs the file. Set data.path to it")
        examples = self._examples(self._content, self.path, "train", "val")
        if "test_images" in self._content:
            return Pooled(examples, self._examples(self._content, self.path, "test"))
        return hold_out(examples, fraction=self.test_fraction, seed=self.split_seed, name=self.path)

    def local(self, path: Path) -> Examples:
        return self._examples(_arrays(path.expanduser()), str(path), "train", "val")

    def unlabelled(self, path: Path) -> tuple[Tensor, list[str]]:
        return images_in(path, Reading(self.size, self.channels))

    def settled(self) -> dict[str, Any]:
        return {"classes": list(self._class_names)}

    def findings(self) -> Findings:
        if self.path is None:
            return Findings()
        counts = Counter(self._examples(self._content, self.path, "train", "val").targets.tolist())
        label = ", ".join(f"{name} ({counts[at]})" for at, name in enumerate(self._class_names))
        shapes = ", ".join(f"{name} {array.shape}" for name, array in sorted(self._content.items()))
        return Findings((f"{self.path}: {shapes}", f"label       {label}"))

    def test(self) -> Examples | None:
        return self.pooled().test if self.path is not None else None

    @cached_property
    def _content(self) -> dict[str, NDArray[Any]]:
        return _arrays(Path(str(self.path)).expanduser())

    @cached_property
    def _class_names(self) -> tuple[str, ...]:
        if (given := given_classes(self.classes, self.path)) is not None:
            return given
        parts = [
            _labels(self._content, split, str(self.path))
            for split in ("train", "val", "test")
            if _has(self._content, split)
        ]
        if not parts or len(found := np.unique(np.concatenate(parts))) < 2:
            raise DataError(
                f"{self.path}: holds no labels of two or more classes; it holds {known(list(self._content))}"
            )
        return tuple(map(str, found.tolist()))

    def _examples(self, content: dict[str, NDArray[Any]], name: str, *splits: str) -> Examples:
        there = [split for split in splits if _has(content, split)]
        if not there:
            raise DataError(f"{name}: no {splits[0]}_images with {splits[0]}_labels; it holds {known(list(content))}")
        inputs, targets = [], []
        for split in there:
            images, labels = content[f"{split}_images"], _labels(content, split, name)
            if len(images) != len(labels):
                raise DataError(f"{name}: {len(images)} {split}_images, but {len(labels)} {split}_labels")
            inputs.append(self._pixels(images, f"{name}: {split}_images"))
            targets.append(self._targets(labels, f"{name}: {split}_labels"))
        return Examples(torch.cat(inputs), torch.cat(targets))

    def _pixels(self, images: NDArray[Any], name: str) -> Tensor:
        if images.dtype != np.uint8 or not (images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == 3)):
            raise DataError(f"{name}: shape {images.shape}, {images.dtype}; must be (n, H, W) or (n, H, W, 3) uint8")
        from PIL import Image

        return torch.stack([to_pixels(Image.fromarray(image), self.size, self.channels) for image in images])

    def _targets(self, labels: NDArray[np.int64], name: str) -> Tensor:
        matcher, found = Matcher(self._class_names), []
        numbered = all(text.isdecimal() for text in self._class_names)
        for at, label in enumerate(labels.tolist()):
            index = matcher.index(str(label))
            if index < 0 and not numbered and 0 <= label < len(self._class_names):
                index = label
            if index < 0:
                classes = known(self._class_names)
                raise DataError(
                    f"{name}, example {at}: {label} is no known label; known: {classes}. Correct data.classes"
                )
            found.append(index)
        if not numbered and len(labels) and 0 not in labels and not name.endswith("test_labels"):
            raise DataError(
                f"{name}: label numbers without names, and never 0: they may count from 0 or from 1. List the numbers"
                " themselves in data.classes"
            )
        return torch.tensor(found, dtype=torch.int64)


def _has(content: dict[str, NDArray[Any]], split: str) -> bool:
    return f"{split}_images" in content and f"{split}_labels" in content


def _labels(content: dict[str, NDArray[Any]], split: str, name: str) -> NDArray[np.int64]:
    labels = content[f"{split}_labels"]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iub":
        raise DataError(
            f"{name}: {split}_labels: shape {labels.shape}, {labels.dtype}; must be one whole number an image"
        )
    return labels.astype(np.int64)


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except (OSError, ValueError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as .npz: {error}") from error
