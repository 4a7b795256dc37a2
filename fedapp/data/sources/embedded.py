"""Real data sets that scikit-learn carries: they need no network and no files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fedapp.data.checks import check_choice, check_fraction
from fedapp.data.held_out import hold_out
from fedapp.data.image_files import Reading, images_in
from fedapp.data.source import DataSource, Examples, Pooled, Scaling, Schema
from fedapp.data.tables.columns import Columns
from fedapp.data.tables.match import Blanks
from fedapp.data.tables.sheet import Form
from fedapp.data.tables.table_file import read_numbers

__all__ = ["BreastCancer", "Digits"]


# Parsing takes as long as a small round; the server and the clients of a simulation read once between them, and have
# copies.
@cache
def _digits() -> tuple[Tensor, Tensor]:
    """Inputs of shape (n, 1, 8, 8), and targets."""
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    bunch = load_digits()
    inputs = torch.from_numpy(bunch.images.astype(np.float32)).unsqueeze(1)
    return inputs, torch.from_numpy(bunch.target.astype(np.int64))


@cache
def _measured() -> tuple[Tensor, Tensor]:
    """Inputs of shape (n, 30), and targets."""
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    return torch.from_numpy(bunch.data.astype(np.float32)), torch.from_numpy(bunch.target.astype(np.int64))


@dataclass(frozen=True)
class Digits(DataSource):
    """1797 handwritten digits, 8 by 8 pixels of 0..16 (Alpaydin & Kaynak, https://doi.org/10.24432/C50P49)."""

    test_fraction: float = 0.2
    split_seed: int = 0

    def __post_init__(self) -> None:
        check_fraction(self.test_fraction, "data.test_fraction")

    def schema(self) -> Schema:
        return Schema((1, 8, 8), classes=tuple("0123456789"), scaling=Scaling("fixed", offset=0.0, scale=16.0))

    def pooled(self) -> Pooled:
        examples = Examples(*(values.clone() for values in _digits()))
        return hold_out(examples, fraction=self.test_fraction, seed=self.split_seed, name="digits")

    def unlabelled(self, path: Path) -> tuple[Tensor, list[str]]:
        """Images, bright ink on a dark ground, at 8 by 8 grey pixels in the 17 levels of the data."""
        pixels, found = images_in(path, Reading(size=8, channels=1))
        return (pixels.float() * (16 / 255)).round(), found


MEASURES = (
    "radius",
    "texture",
    "perimeter",
    "area",
    "smoothness",
    "compactness",
    "concavity",
    "concave points",
    "symmetry",
    "fractal dimension",
)


# Least and largest value of every measurement, as the data set's description gives them: public, unlike clients' own.
RANGES = (
    *((6.981, 28.11), (9.71, 39.28), (43.79, 188.5), (143.5, 2501.0), (0.053, 0.163), (0.019, 0.345), (0.0, 0.427)),
    *((0.0, 0.201), (0.106, 0.304), (0.05, 0.097), (0.112, 2.873), (0.36, 4.885), (0.757, 21.98), (6.802, 542.2)),
    *((0.002, 0.031), (0.002, 0.135), (0.0, 0.396), (0.0, 0.053), (0.008, 0.079), (0.001, 0.03), (7.93, 36.04)),
    *((12.02, 49.54), (50.41, 251.2), (185.2, 4254.0), (0.071, 0.223), (0.027, 1.058), (0.0, 1.252), (0.0, 0.291)),
    *((0.156, 0.664), (0.055, 0.208)),
)


def published_scaling() -> Scaling:
    """Every feature from about -2 to 2: its range has four deviations."""
    offset = tuple((low + high) / 2 for low, high in RANGES)
    return Scaling("fixed", offset, tuple((high - low) / 4 for low, high in RANGES))


@dataclass(frozen=True)
class BreastCancer(DataSource):
    """569 fine needle aspirates of breast masses, each with 30 measurements of cell nuclei, malignant or benign
    (Wolberg et al., https://doi.org/10.24432/C5DW2B)."""

    test_fraction: float = 0.2
    split_seed: int = 0
    scaling: Literal["federated", "published"] = "federated"

    def __post_init__(self) -> None:
        check_fraction(self.test_fraction, "data.test_fraction")
        check_choice(self.scaling, ("federated", "published"), "data.scaling")

    def schema(self) -> Schema:
        features = [f"mean {m}" for m in MEASURES] + [f"{m} error" for m in MEASURES] + [f"worst {m}" for m in MEASURES]
        scaling = Scaling("federated") if self.scaling == "federated" else published_scaling()
        return Schema((30,), ("malignant", "benign"), tuple(features), scaling)

    def column_groups(self) -> Mapping[str, Sequence[str]]:
        return {"means": ["mean *"], "errors": ["* error"], "worst": ["worst *"]}

    def label_group(self) -> str:
        return "means"

    def pooled(self) -> Pooled:
        examples = Examples(*(values.clone() for values in _measured()))
        return hold_out(examples, fraction=self.test_fraction, seed=self.split_seed, name="breast_cancer")

    def unlabelled(self, path: Path) -> tuple[Tensor, list[str]]:
        """A CSV file with a column for each measurement, named as scikit-learn does ("mean radius", ...)."""
        columns, _ = self.table_form()
        return columns.unlabelled(read_numbers(path, columns.inputs))

    def table_form(self) -> tuple[Columns, Form]:
        return Columns(None, self.schema().features, {}, (), "error", Blanks(("",))), Form()
