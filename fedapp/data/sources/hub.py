"""Data sets of images or of numbers from the Hugging Face Hub, through Flower Datasets."""

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fedapp.common.errors import ConfigError, DataError
from fedapp.common.override_text import pasted
from fedapp.data.checks import check_fraction, check_size, known, names
from fedapp.data.held_out import hold_out
from fedapp.data.hub_split import check_column, column_of, hub_split
from fedapp.data.image_files import Reading, images_in
from fedapp.data.pixels import PIXEL_SCALING, to_pixels
from fedapp.data.source import DataSource, Examples, Pooled, Scaling, Schema
from fedapp.data.tables.columns import Columns
from fedapp.data.tables.match import Blanks, Matcher
from fedapp.data.tables.table_file import read_numbers
from fedapp.data.tables.text import value_of

if TYPE_CHECKING:
    from datasets import Dataset  # type: ignore[import-untyped]

__all__ = ["Hub"]


@dataclass(frozen=True)
class Hub(DataSource):
    """One `image` column, or `features`: columns of numbers; downloaded once, then read from the local cache.

    `dataset` and `subset` are as on the Hub; a local folder of Parquet files or images will do for `dataset`.
    `test_split` None: `test_fraction` of the training split is held out. `classes` are given here, so that devices
    and server know them without a download: in any order where the data set names its labels or they are its label
    numbers, else in the order of numbers that begin with 0; None: regression. `group` names a column to split clients
    by, such as the writer, `split_by` one whose examples no split separates, such as the patient.
    """

    dataset: str
    label: str
    image: str | None = None
    features: Sequence[str] | None = None
    classes: Sequence[str | int] | None = None
    group: str | None = None
    split_by: str | None = None
    subset: str | None = None
    train_split: str = "train"
    test_split: str | None = "test"
    size: int = 32
    channels: int = 3
    test_fraction: float = 0.2
    split_seed: int = 0

    def __post_init__(self) -> None:
        check_fraction(self.test_fraction, "data.test_fraction")
        check_size(self.size, self.channels)
        if (self.image is None) == (self.features is None):
            raise ConfigError(
                f"data.image={self.image}, data.features={self.features}: set one, the column of images or the list of"
                " columns of numbers, and leave the other null"
            )
        if self.features is not None:
            names(self.features, "data.features", at_least=1)
        self._class_names()

    def schema(self) -> Schema:
        if self.features is not None:
            return Schema((len(self.features),), self._class_names(), tuple(self.features), Scaling("federated"))
        return Schema((self.channels, self.size, self.size), self._class_names(), scaling=PIXEL_SCALING)

    def pooled(self) -> Pooled:
        split = self._split(self.train_split)
        examples = self._examples(split, self.train_split)
        columns = {} if self.group is None else {self.group: column_of(split, self.group, self._name(self.train_split))}
        if self.test_split is not None:
            return Pooled(examples, self.test(), columns)
        name = self._name(self.train_split)
        return hold_out(examples, fraction=self.test_fraction, seed=self.split_seed, name=name, columns=columns)

    def test(self) -> Examples | None:
        if self.test_split is None:
            return self.pooled().test
        return self._examples(self._split(self.test_split), self.test_split)

    def unlabelled(self, path: Path) -> tuple[Tensor, list[str]]:
        """Images, or a CSV file with a column for each of `features`."""
        if self.features is None:
            return images_in(path, Reading(self.size, self.channels))
        columns = Columns(None, tuple(self.features), {}, (), "error", Blanks(("",)))
        return columns.unlabelled(read_numbers(path, columns.inputs))

    def _class_names(self) -> tuple[str, ...]:
        return () if self.classes is None else names(self.classes, "data.classes", at_least=2)

    def _name(self, split: str) -> str:
        return f"{self.dataset} ({split})"

    def _split(self, split: str) -> "Dataset":
        return hub_split(self.dataset, self.subset, split)

    def _training_labels(self) -> set[object]:
        return set(column_of(self._split(self.train_split), self.label, self._name(self.train_split)))

    def _examples(self, split: "Dataset", split_name: str) -> Examples:
        name, classes = self._name(split_name), self._class_names()
        if not len(split):
            raise DataError(f"{name}: the split is empty")
        if self.features is not None:
            inputs = torch.stack([_floats(split, column, name) for column in self.features], dim=1)
        else:
            inputs = _images(split, str(self.image), name, self.size, self.channels)
        if classes:
            targets = _class_indices(split, self.label, name, classes, self._training_labels)
        else:
            targets = _floats(split, self.label, name)
        if self.split_by is None:
            return Examples(inputs, targets)
        groups = np.unique(np.array(column_of(split, self.split_by, name), dtype=str), return_inverse=True)[1]
        return Examples(inputs, targets, torch.from_numpy(groups.astype(np.int64)))


def _images(split: "Dataset", column: str, name: str, size: int, channels: int) -> Tensor:
    """(n, channels, size, size) uint8, decoded one by one: the files are kept compressed until then."""
    import datasets
    from PIL import Image

    check_column(split, column, name)
    if not isinstance(split.features[column], datasets.Image):
        raise DataError(f"{name}: column {column!r} holds {split.features[column]}, no images. Set data.image")
    files = split.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    pixels = torch.empty((len(split), channels, size, size), dtype=torch.uint8)
    for at, row in enumerate(files):
        file = row[column]
        try:
            with Image.open(file["path"] if file["bytes"] is None else io.BytesIO(file["bytes"])) as image:
                pixels[at] = to_pixels(image, size, channels)
        except Exception as error:  # Pillow's decoders raise whatever their format's parser does
            raise DataError(f"{name}: column {column!r}, example {at}: cannot be used as an image: {error}") from error
    return pixels


def _floats(split: "Dataset", column: str, name: str) -> Tensor:
    """(n,) float32, all finite."""
    values = column_of(split, column, name)
    kind = str(getattr(split.features[column], "dtype", split.features[column]))
    if not kind.startswith(("int", "uint", "float", "bool")):
        raise DataError(f"{name}: column {column!r} holds {kind}, not numbers")
    with np.errstate(over="ignore"):
        floats = np.array(values, dtype=np.float64).astype(np.float32)
    bad = ~np.isfinite(floats)
    if bad.any():
        at = int(bad.argmax())
        raise DataError(
            f"{name}: column {column!r}, example {at}: {values[at]} is missing, infinite or too large for a float32."
            " Choose other columns, or export the data for data=csv, which can leave out or impute missing values"
        )
    return torch.from_numpy(floats)


def _class_indices(
    split: "Dataset", column: str, name: str, classes: Sequence[str], all_labels: Callable[[], Iterable[object]]
) -> Tensor:
    """(n,) int64: by name where the data set names its labels, or by value. Label numbers that are in neither way among
    `classes` are places in that list only where 0 is one of `all_labels`, those of the training split: else they may as
    well count from 1. Raises DataError."""
    values = column_of(split, column, name)
    own_names = getattr(split.features[column], "names", None)
    if own_names is not None:
        texts = [own_names[value] if value is not None and 0 <= value < len(own_names) else value for value in values]
    else:
        texts = values
    matcher, placed = Matcher(classes), set[int]()
    found = [matcher.index(str(value)) for value in texts]
    if own_names is None and not all(value_of(text) is not None for text in classes):
        for at, value in enumerate(texts):
            if found[at] < 0 and type(value) is int and 0 <= value < len(classes):
                found[at] = value
                placed.add(value)
    if -1 in found:
        at = found.index(-1)
        raise DataError(
            f"{name}: column {column!r}, example {at}: {texts[at]!r} is no known label; known: {known(classes)}."
            " Correct data.classes, or choose a split with labels"
        )
    if placed and 0 not in all_labels():
        numbers = sorted(placed)
        raise DataError(
            f"{name}: column {column!r} holds the label numbers {known(numbers)} without names, and never 0: they may"
            f" count from 0 or from 1. List the numbers themselves, such as {pasted('data.classes', numbers)}"
        )
    return torch.tensor(found, dtype=torch.int64)
