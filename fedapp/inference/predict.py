"""Predictions for new, unlabelled examples."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fedapp.inference.saved import Saved

__all__ = ["Predictions", "predict"]


@dataclass(frozen=True)
class Predictions:
    """`values` are probabilities (n, classes), or (n, 1) where `classes` is empty; a name for each of the n."""

    names: tuple[str, ...]
    classes: tuple[str, ...]
    values: Tensor

    def lines(self) -> Iterator[str]:
        """Name, predicted class and its probability, with tabs between; for regression name and value."""
        for name, predicted, row in self._rows():
            yield "\t".join([name, predicted, *([f"{max(row):.4f}"] if self.classes else [])])

    def to_csv(self) -> bytes:
        """`name`, `prediction`, and for each class `probability of <class>`, in UTF-8."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["name", "prediction", *(f"probability of {label}" for label in self.classes)])
        for name, predicted, row in self._rows():
            writer.writerow([name, predicted, *(f"{value:.9g}" for value in row if self.classes)])
        return text.getvalue().encode("utf-8", "backslashreplace")  # file names need not be UTF-8

    def _rows(self) -> Iterator[tuple[str, str, list[float]]]:
        for name, row in zip(self.names, self.values.tolist(), strict=True):
            predicted = self.classes[row.index(max(row))] if self.classes else f"{row[0]:.9g}"
            yield name, predicted, row


def predict(saved: Saved, paths: Sequence[Path]) -> Predictions:
    """What the model says of the examples in `paths`: files or folders, as the data source takes them.

    Images are named by their path; rows of a table by their number in a spreadsheet, behind the file's path where
    there are several. Raises DataError, opening with the path.
    """
    names: list[str] = []
    values = []
    for path in paths:
        inputs, found = saved.source.unlabelled(path)
        values.append(saved.predict(inputs, str(path)))
        names += [f"{path}:{name}" for name in found] if saved.schema.features and len(paths) > 1 else found
    return Predictions(tuple(names), saved.schema.classes, torch.cat(values))
