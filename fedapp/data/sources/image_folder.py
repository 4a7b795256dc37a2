"""Folders of images, one sub-folder a class: one tree that a simulation splits, or one on each device."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from fedapp.common.errors import ConfigError, DataError
from fedapp.data.checks import check_choice, check_fraction, check_grey_range, check_size, given_classes, known, names
from fedapp.data.findings import Findings
from fedapp.data.held_out import hold_out
from fedapp.data.image_files import DecodedImages, Reading, decode, images_in
from fedapp.data.image_tree import ImageTree, Layout
from fedapp.data.pixels import PIXEL_SCALING
from fedapp.data.source import DataSource, Examples, Pooled, Schema

__all__ = ["ImageFolder"]

Unreadable = Literal["error", "skip"]
SITE = "site"
SHOWN = 5  # files in a message


@dataclass(frozen=True)
class ImageFolder(DataSource):
    """Images in `<root>/<class>/<any name>.png`, decoded once and kept as (n, channels, size, size) uint8.

    `path` is the root of a simulation's images, `test_path` the server's held-out root (None: `test_fraction` of
    `path`). A device names its own root in its node-config, and needs no folder for a class that it has not seen.
    `classes` are those of the images in `path` where they are None; for devices they must be given. `layout` says
    where else images lie: with {site} clients can be sites (`group` = site), and no split separates images of one
    {group}, such as a patient. `unreadable` says what becomes of a damaged file, `grey_range` what is black and white
    in images of more than 8 bits.
    """

    path: str | None = None
    size: int = 32
    channels: int = 3
    classes: Sequence[str | int] | None = None
    layout: str = "{class}/*"
    group: str | None = None
    unreadable: Unreadable = "error"
    grey_range: Sequence[float] | None = None
    test_path: str | None = None
    test_fraction: float = 0.2
    split_seed: int = 0

    def __post_init__(self) -> None:
        check_fraction(self.test_fraction, "data.test_fraction")
        check_size(self.size, self.channels)
        check_choice(self.unreadable, get_args(Unreadable), "data.unreadable")
        check_grey_range(self.grey_range)
        if self.group is not None and (self.group != SITE or SITE not in Layout(self.layout).has):
            raise ConfigError(f"data.group={self.group}: must be site, with {{site}} in data.layout={self.layout}")
        if self.classes is not None:
            names(self.classes, "data.classes", at_least=2)
        Layout(self.layout)

    def schema(self) -> Schema:
        return Schema((self.channels, self.size, self.size), self._class_names(), scaling=PIXEL_SCALING)

    def pooled(self) -> Pooled:
        if self.path is None:
            raise ConfigError("data.path=null: a simulation needs all images. Set data.path to their folder")
        examples, sites, _ = self._whole
        columns = {SITE: sites} if SITE in Layout(self.layout).has else {}
        if self.test_path is not None:
            return Pooled(examples, self._load(self._tree(self.test_path), self.test_path)[0], columns)
        return hold_out(examples, fraction=self.test_fraction, seed=self.split_seed, name=self.path, columns=columns)

    def local(self, path: Path) -> Examples:
        return self._load(Layout(self.layout).on_device().find(path.expanduser()), path)[0]

    def unlabelled(self, path: Path) -> tuple[Tensor, list[str]]:
        return images_in(path, self._reading)

    def settled(self) -> dict[str, Any]:
        return {"classes": list(self._class_names())}

    def findings(self) -> Findings:
        if self.path is None:
            return Findings()
        examples, sites, decoded = self._whole
        classes, counts = self._class_names(), Counter(examples.targets.tolist())
        facts = [
            f"{self.path}: {len(examples)} images",
            f"label       {', '.join(f'{name} ({counts[at]})' for at, name in enumerate(classes))}",
        ]
        if any(sites):
            found = sorted(set(sites))
            how = f"data.group=site partition=natural federation.num_clients={len(found)}"
            facts.append(f"sites       {len(found)}: {known(found)}; to make each a client, set {how}")
        if examples.groups is not None:
            facts.append(f"groups      {len(set(examples.groups.tolist()))}, which no split separates")
        return Findings(tuple(facts), tuple(self._warnings(decoded)))

    def test(self) -> Examples | None:
        if self.test_path is not None:
            return self._load(self._tree(self.test_path), self.test_path)[0]
        return self.pooled().test if self.path is not None else None

    def _warnings(self, decoded: DecodedImages) -> list[str]:
        warnings = []
        if decoded.faults:
            total = len(decoded.faults) + len(decoded.kept)
            shown = "; ".join(decoded.faults[:SHOWN])
            warnings.append(f"{len(decoded.faults)} of {total} images cannot be read and are left out: {shown}")
        if empty := self._found.empty:
            warnings.append(
                f"{known([str(folder) for folder in empty], SHOWN)}: holds no image, and is no class by itself"
            )
        if decoded.highest is not None and self.grey_range is None and decoded.highest < 2**15:
            warnings.append(
                f"images of 16 bits have greys up to {decoded.highest:g} only, and become dark. If that is white, set"
                f" data.grey_range=[0,{decoded.highest:g}]"
            )
        return warnings

    @property
    def _reading(self) -> Reading:
        given = None if self.grey_range is None else (float(self.grey_range[0]), float(self.grey_range[1]))
        return Reading(self.size, self.channels, given, self.unreadable == "skip")

    def _class_names(self) -> tuple[str, ...]:
        if (given := given_classes(self.classes, self.path)) is not None:
            return given
        found = tuple(sorted({image.label for image in self._found.images}))
        if len(found) < 2:
            raise DataError(f"{self.path}: has images of the classes {known(found)}; two or more are needed")
        return found

    @cached_property
    def _found(self) -> ImageTree:
        return self._tree(str(self.path))

    @cached_property
    def _whole(self) -> tuple[Examples, list[str], DecodedImages]:
        return self._load(self._found, str(self.path))

    def _tree(self, folder: str) -> ImageTree:
        return Layout(self.layout).find(Path(folder).expanduser())

    def _load(self, tree: ImageTree, root: str | Path) -> tuple[Examples, list[str], DecodedImages]:
        """The images as examples, each one's site, and what decoding them found."""
        classes = {name: index for index, name in enumerate(self._class_names())}
        for image in tree.images:
            if image.label not in classes:
                raise DataError(
                    f"{image.labelled}: no known class; known: {known(list(classes))}. Rename it, or add it to"
                    " data.classes"
                )
        decoded = decode([image.file for image in tree.images], self._reading)
        images = [tree.images[at] for at in decoded.kept]
        targets = torch.tensor([classes[image.label] for image in images], dtype=torch.int64)
        groups = None
        if "group" in Layout(self.layout).has:
            groups = torch.from_numpy(
                np.unique([image.group for image in images], return_inverse=True)[1].astype(np.int64)
            )
        return Examples(decoded.pixels, targets, groups), [image.site for image in images], decoded
