"""What a data set is to the rest of the app: a schema, and examples held as tensors.

A new data set is one file beside this one with one subclass of `DataSource`, and one YAML file in
`conf/data/` whose `_target_` names it.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from fedapp.common.errors import DataError
from fedapp.data.findings import Findings

if TYPE_CHECKING:
    from fedapp.data.tables.columns import Columns
    from fedapp.data.tables.sheet import Form
    from fedapp.data.text.vocabulary import Vocabulary

__all__ = ["DataSource", "Examples", "Pooled", "Scaling", "Schema", "check_inputs"]


@dataclass(frozen=True)
class Scaling:
    """How inputs become `(x - offset) / scale`, as the first layer of every model.

    `fixed`: by the two numbers given (pixels 0..255: offset 0, scale 255), or by two for each feature. `federated`: by
    the mean and the standard deviation of each feature over all clients, agreed in the preflight; offset and scale are
    unused.
    """

    kind: Literal["fixed", "federated"] = "fixed"
    offset: float | tuple[float, ...] = 0.0
    scale: float | tuple[float, ...] = 1.0


@dataclass(frozen=True)
class Schema:
    """What server and clients must agree on before round 1.

    `input_shape` is one example's, e.g. `(1, 8, 8)` or `(30,)`. `classes` names the labels in the order of
    their indices; empty means regression with one float target. `features` names the columns of a table
    (after one-hot encoding, so `len(features) == input_shape[0]`), and is empty for images.
    `impute` says that inputs may hold NaN, which the input layer replaces by the feature's mean. `vocabulary` is how
    many tokens there are where inputs are token indices; 0 means that inputs are numbers. `steps` is how many steps of
    time there are of each feature, which then follow each other in `features`; 0 means that there is no time.
    `labels` names those of which an example has any number at once, in the order of the columns of targets; then there
    are no classes. `text` says what the tokens are where inputs are text; without classes the next token is predicted.
    """

    input_shape: tuple[int, ...]
    classes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    scaling: Scaling = field(default_factory=Scaling)
    impute: bool = False
    vocabulary: int = 0
    steps: int = 0
    labels: tuple[str, ...] = ()
    text: "Vocabulary | None" = None

    @property
    def num_outputs(self) -> int:
        """Width of the model's head: the number of classes or labels, of tokens, or 1 for regression."""
        return len(self.labels) or len(self.classes) or (1 if self.text is None else self.vocabulary)

    @property
    def kind(self) -> str:
        """The kind of task that the data is for: an option of conf/task/kind/. A subclass may name another one."""
        if self.labels:
            return "multilabel"
        if self.text is not None and not self.classes:
            return "next_token"
        return "classification" if self.classes else "regression"

    @property
    def input_dtype(self) -> torch.dtype:
        """int64 for tokens. Numbers are float32; as pixels they may be stored as uint8."""
        return torch.int64 if self.vocabulary else torch.float32


def check_inputs(inputs: Tensor, schema: Schema, name: str) -> None:
    """A DataError that opens with `name`, unless `inputs` (n, *input_shape) fit `schema`."""
    if tuple(inputs.shape[1:]) != schema.input_shape:
        raise DataError(f"{name}: examples have shape {tuple(inputs.shape[1:])}, the task expects {schema.input_shape}")
    if schema.vocabulary:
        if inputs.dtype != torch.int64:
            raise DataError(f"{name}: tokens are {inputs.dtype}, token indices must be int64")
        if inputs.numel() and not 0 <= int(inputs.min()) <= int(inputs.max()) < schema.vocabulary:
            raise DataError(f"{name}: a token index lies outside 0..{schema.vocabulary - 1}")
    if inputs.is_floating_point():
        bad = torch.isinf(inputs) if schema.impute else ~torch.isfinite(inputs)
        if bad.any():
            row = int(bad.flatten(1).any(1).nonzero()[0])
            raise DataError(f"{name}: example {row} holds NaN or an infinite value")


@dataclass(frozen=True)
class Examples:
    """n examples: `inputs` (n, *input_shape) float32 or uint8, or int64 for tokens; `targets` as the task says, such as
    (n,) int64 for classes, (n,) float32 for numbers, (n, labels) float32 of 0 and 1 for several labels at once, and
    (n, T) int64 for the tokens that follow T tokens.

    Where there are `groups` (n,) int64, such as a number for each patient, no split separates examples of one; where
    there are `times` (n,) float64, what is held out comes last.
    """

    inputs: Tensor
    targets: Tensor
    groups: Tensor | None = None
    times: Tensor | None = None

    def __len__(self) -> int:
        return int(self.targets.shape[0])

    def take(self, indices: Sequence[int] | Tensor) -> "Examples":
        index = torch.as_tensor(indices, dtype=torch.int64)
        return self._each(lambda values: values[index])

    def span(self, start: int, end: int) -> "Examples":
        """Rows start..end-1 as a view; nothing is copied."""
        return self._each(lambda values: values[start:end])

    def to(self, device: torch.device) -> "Examples":
        return Examples(self.inputs.to(device), self.targets.to(device))

    def sha256(self) -> str:
        """Of all bytes of inputs and targets, on the CPU."""
        digest = hashlib.sha256()
        for tensor in (self.inputs, self.targets):
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy().data)
        return digest.hexdigest()

    def _each(self, of: Callable[[Tensor], Tensor]) -> "Examples":
        groups, times = (None if values is None else of(values) for values in (self.groups, self.times))
        return Examples(of(self.inputs), of(self.targets), groups, times)

    @property
    def nbytes(self) -> int:
        return self.inputs.nbytes + self.targets.nbytes

    def check(self, schema: Schema, name: str) -> "Examples":
        """These examples, if their inputs fit `schema`; else a DataError that opens with `name`. What targets are is
        for the task to check."""
        check_inputs(self.inputs, schema, name)
        if len(self.inputs) != len(self.targets):
            raise DataError(f"{name}: {len(self.inputs)} inputs, but {len(self.targets)} labels")
        return self


@dataclass(frozen=True)
class Pooled:
    """All data in one place, as simulations have it.

    `train` is split over the clients; `test` stays with the server (None: no central evaluation). `columns`
    holds, by name, what a partitioner may split `train` by besides the label: one value an example. The names
    `row`, `label` and `target` are the partitioners' own.
    """

    train: Examples
    test: Examples | None = None
    columns: Mapping[str, Sequence[str | int | float]] = field(default_factory=dict)


class DataSource(ABC):
    """Where examples come from. Constructing one touches no data, so it costs nothing and cannot fail on it."""

    @abstractmethod
    def schema(self) -> Schema:
        """The schema, known to the server without any client's data where that is possible."""

    @abstractmethod
    def pooled(self) -> Pooled:
        """The whole data set, for simulations. Raises DataError where there is none."""

    def local(self, path: Path) -> Examples:
        """One device's own data, from the `data-path` of its SuperNode's node-config."""
        raise DataError(
            f"data-path={str(path)!r}: {type(self).__name__} has no form that lies on a device. Use data=csv or"
            " data=image_folder, or start the SuperNode with partition-id and num-partitions instead of data-path"
        )

    def unlabelled(self, path: Path) -> tuple[Tensor, list[str]]:
        """New examples to predict, from a file or folder: inputs (n, *input_shape) as in `Examples`, and a name of
        each. Needs nothing but `path` where the arguments are `settled`. Raises DataError, opening with the path."""
        raise DataError(
            f"{path}: {type(self).__name__} reads no new examples from files; write its method `unlabelled`, as"
            " fedapp/data/sources/image_folder.py has it"
        )

    def settled(self) -> dict[str, Any]:
        """The constructor's arguments that were found in the data, so that the same schema comes without the data."""
        return {}

    def from_rows(self) -> tuple[str, ...]:
        """Settings, as overrides with a usual value, that are not given, so that how each row is read follows from the
        others."""
        return ()

    def findings(self) -> Findings:
        """What was inferred from a simulation's data, and what looks wrong in it, such as columns that look like
        identifiers. Called after the data was read without an error."""
        return Findings()

    def column_groups(self) -> Mapping[str, Sequence[str]]:
        """By party, its columns or patterns of them, as partition=columns deals a table out unless the config says how;
        empty where the data suggests nothing."""
        return {}

    def table_form(self) -> "tuple[Columns, Form] | None":
        """How the columns of a table become inputs one by one, and how its cells are written, by which each party of
        partition=columns reads its own columns of new rows; None: the data is no such table."""
        return None

    def label_group(self) -> str | None:
        """Which of these parties has the labels, unless the config says so; None: the first by name."""
        return None

    def test(self) -> Examples | None:
        """The server's held-out data; None: no central evaluation. Must not need a client's data if it can help it."""
        return self.pooled().test
