"""Real data sets that scikit-learn carries: they need no network and no files."""

from dataclasses import dataclass

import numpy as np
import torch

from fedapp.data.checks import check_fraction
from fedapp.data.held_out import hold_out
from fedapp.data.source import DataSource, Examples, Pooled, Scaling, Schema

__all__ = ["BreastCancer", "Digits"]


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
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]

        bunch = load_digits()
        inputs = torch.from_numpy(bunch.images.astype(np.float32)).unsqueeze(1)  # (n, 1, 8, 8)
        examples = Examples(inputs, torch.from_numpy(bunch.target.astype(np.int64)))
        return hold_out(examples, fraction=self.test_fraction, seed=self.split_seed, name="digits")


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


@dataclass(frozen=True)
class BreastCancer(DataSource):
    """569 fine needle aspirates of breast masses, each with 30 measurements of cell nuclei, malignant or benign
    (Wolberg et al., https://doi.org/10.24432/C5DW2B)."""

    test_fraction: float = 0.2
    split_seed: int = 0

    def __post_init__(self) -> None:
        check_fraction(self.test_fraction, "data.test_fraction")

    def schema(self) -> Schema:
        features = [f"mean {m}" for m in MEASURES] + [f"{m} error" for m in MEASURES] + [f"worst {m}" for m in MEASURES]
        return Schema((30,), ("malignant", "benign"), tuple(features), Scaling("federated"))

    def pooled(self) -> Pooled:
        from sklearn.datasets import load_breast_cancer

        bunch = load_breast_cancer()
        inputs = torch.from_numpy(bunch.data.astype(np.float32))  # (n, 30)
        examples = Examples(inputs, torch.from_numpy(bunch.target.astype(np.int64)))
        return hold_out(examples, fraction=self.test_fraction, seed=self.split_seed, name="breast_cancer")
