"""Predictions for new, unlabelled examples."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fedapp.inference.saved import Saved
from fedapp.learning.task import Task

__all__ = ["Predictions", "predict"]


@dataclass(frozen=True)
class Predictions:
    """`values` are the task's predictions (n, ...), such as probabilities (n, classes); a name for each of the n."""

    names: tuple[str, ...]
    task: Task
    values: Tensor

    def lines(self) -> Iterator[str]:
        """Name and prediction with tabs between: a class and its probability, or a value."""
        for name, prediction in zip(self.names, self.values.tolist(), strict=True):
            yield "\t".join([name, *self.task.line(prediction)])

    def to_csv(self) -> bytes:
        """`name` and the task's columns: `prediction`, and for each class `probability of <class>`. In UTF-8."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["name", *self.task.columns])
        for name, prediction in zip(self.names, self.values.tolist(), strict=True):
            writer.writerow([name, *self.task.row(prediction)])
        return text.getvalue().encode("utf-8", "backslashreplace")  # file names need not be UTF-8


def predict(saved: Saved, paths: Sequence[Path]) -> Predictions:
    """What the model says of the examples in `paths`: files or folders, as the data source takes them.

    Images are named by their path; rows of a table by their number in a spreadsheet, behind the file's path where
    there are several. Raises DataError, opening with the path.
    """
    names: list[str] = []
    values = []
    for path in paths:
        inputs, found = saved.source.unlabelled(path)
        values.append(saved.tell(inputs, str(path)))
        names += [f"{path}:{name}" for name in found] if saved.schema.features and len(paths) > 1 else found
    return Predictions(tuple(names), saved.task, torch.cat(values))
