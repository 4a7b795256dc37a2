"""Folders of images, one sub-folder a class: one tree that a simulation splits, or one on each device."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedapp.common.errors import ConfigError, DataError
from fedapp.data.checks import check_fraction, check_size, known, names
from fedapp.data.held_out import hold_out
from fedapp.data.image_files import IMAGE_ENDINGS, check_image, decode, images_in
from fedapp.data.leavings import entries
from fedapp.data.pixels import PIXEL_SCALING
from fedapp.data.source import DataSource, Examples, Pooled, Schema

__all__ = ["ImageFolder"]


@dataclass(frozen=True)
class ImageFolder(DataSource):
    """Images in `<root>/<class>/<any name>.png`, decoded once and kept as (n, channels, size, size) uint8.

    `path` is the root of a simulation's images, `test_path` the server's held-out root (None: `test_fraction` of
    `path`). A device names its own root in its node-config, and needs no folder for a class that it has not seen.
    `classes` are the sub-folders of `path` where they are None; for devices they must be given.
    """

    path: str | None = None
    size: int = 32
    channels: int = 3
    classes: Sequence[str | int] | None = None
    test_path: str | None = None
    test_fraction: float = 0.2
    split_seed: int = 0

    def __post_init__(self) -> None:
        check_fraction(self.test_fraction, "data.test_fraction")
        check_size(self.size, self.channels)
        if self.classes is not None:
            names(self.classes, "data.classes", at_least=2)

    def schema(self) -> Schema:
        return Schema((self.channels, self.size, self.size), self._class_names(), scaling=PIXEL_SCALING)

    def pooled(self) -> Pooled:
        if self.path is None:
            raise ConfigError("data.path=null: a simulation needs all images. Set data.path to their folder")
        examples = self._load(self.path)
        if self.test_path is not None:
            return Pooled(examples, self._load(self.test_path))
        return hold_out(examples, fraction=self.test_fraction, seed=self.split_seed, name=self.path)

    def local(self, path: Path) -> Examples:
        return self._load(path)

    def unlabelled(self, path: Path) -> tuple[Tensor, list[str]]:
        return images_in(path, self.size, self.channels)

    def settled(self) -> dict[str, Any]:
        return {"classes": list(self._class_names())}

    def test(self) -> Examples | None:
        if self.test_path is not None:
            return self._load(self.test_path)
        return self.pooled().test if self.path is not None else None

    def _class_names(self) -> tuple[str, ...]:
        if self.classes is not None:
            return names(self.classes, "data.classes", at_least=2)
        if self.path is None:
            raise ConfigError(
                "data.classes: must be set where data.path is not. Devices and server cannot infer the classes, since"
                " nobody sees all the data"
            )
        folders = tuple(entry.name for entry in entries(Path(self.path).expanduser()) if entry.is_dir())
        if len(folders) < 2:
            raise DataError(f"{self.path}: has the class folders {known(folders)}; two or more are needed")
        return folders

    def _load(self, folder: str | Path) -> Examples:
        root, classes = Path(folder).expanduser(), self._class_names()
        files: list[Path] = []
        targets: list[int] = []
        for entry in entries(root):
            if not entry.is_dir():
                raise DataError(f"{entry}: a stray file. Images lie one folder deeper, in {root}/<class>/")
            if entry.name not in classes:
                raise DataError(
                    f"{entry}: no known class; known: {known(classes)}. Rename it, or add it to data.classes"
                )
            images = [check_image(image, "A class folder") for image in entries(entry)]
            files += images
            targets += [classes.index(entry.name)] * len(images)
        if not files:
            raise DataError(f"{root}: no images. They belong in {root}/<class>/, named *{' *'.join(IMAGE_ENDINGS)}")
        return Examples(decode(files, self.size, self.channels), torch.tensor(targets, dtype=torch.int64))
