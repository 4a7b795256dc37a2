"""A table as a CSV file: one that a simulation splits over its clients, or one on each device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from torch import Tensor

from fedapp.common.errors import ConfigError, DataError
from fedapp.data.checks import check_choice, check_fraction, check_roles, known, names
from fedapp.data.columns import Columns, Missing
from fedapp.data.csv_file import read_cells
from fedapp.data.held_out import hold_out
from fedapp.data.infer import distinct, infer_features
from fedapp.data.source import DataSource, Examples, Pooled, Scaling, Schema

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]

__all__ = ["CsvTable"]


@dataclass(frozen=True)
class CsvTable(DataSource):
    """Rows of a CSV file in UTF-8 with a header, as examples.

    `path` is the whole table of a simulation, `test_path` the server's held-out table (None: `test_fraction` of
    `path`). A device names its own file in its node-config. `numeric`, `categorical` (column to categories) and
    `classes` are inferred from `path` where they are None; on devices all must be given. `group` names a column
    that is no feature but can split a simulation's table, such as the hospital. `missing` says what becomes of
    a missing value: an error; the row is dropped; or NaN for the model to replace by the federated mean
    (a missing category then belongs to no category). Raises ConfigError for settings that contradict each other.
    """

    label: str
    path: str | None = None
    classes: Sequence[str | int] | None = None
    numeric: Sequence[str] | None = None
    categorical: Mapping[str, Sequence[str | int]] | None = None
    ignore: Sequence[str] = ()
    group: str | None = None
    missing: Missing = "error"
    missing_values: Sequence[str] = ("", "NA", "NaN", "nan")
    regression: bool = False
    scaling: Literal["federated", "given", "none"] = "federated"
    means: Mapping[str, float] | None = None
    deviations: Mapping[str, float] | None = None
    delimiter: str = ","
    test_path: str | None = None
    test_fraction: float = 0.2
    split_seed: int = 0

    def __post_init__(self) -> None:
        check_fraction(self.test_fraction, "data.test_fraction")
        check_choice(self.missing, get_args(Missing), "data.missing")
        check_choice(self.scaling, ("federated", "given", "none"), "data.scaling")
        self._check_given()
        if len(self.delimiter) != 1:
            raise ConfigError(f"data.delimiter={self.delimiter!r}: must be one character, such as ',' or ';'")
        if self.missing == "mean" and self.scaling == "none":
            raise ConfigError(
                "data.missing=mean, data.scaling=none: the mean is known from scaling only. Set data.scaling=federated,"
                " or data.missing=drop"
            )
        if self.regression and self.classes is not None:
            raise ConfigError("data.classes: regression has no classes. Set data.regression=false or data.classes=null")
        self._named()
        groups = [] if self.group is None else [self.group]
        check_roles(
            [
                ("data.label", [self.label]),
                ("data.group", groups),
                ("data.numeric", self.numeric or ()),
                ("data.categorical", list(self.categorical or {})),
                ("data.ignore", self.ignore),
            ]
        )
        if self.numeric is not None and self.categorical is not None and not (self.numeric or self.categorical):
            raise ConfigError("data.numeric=[], data.categorical={}: no feature is left. Name at least one column")

    def _check_given(self) -> None:
        """Constants for every numeric column where the config gives them, and nowhere else."""
        if self.scaling != "given":
            if self.means is not None or self.deviations is not None:
                raise ConfigError(f"data.means, data.deviations: have no effect under data.scaling={self.scaling}")
            return
        if self.numeric is None:
            raise ConfigError("data.scaling=given: list the columns of numbers in data.numeric")
        for name, given in (("means", self.means), ("deviations", self.deviations)):
            if set(given or {}) != set(self.numeric):
                raise ConfigError(
                    f"data.{name}={dict(given or {})}: needs a value for each of data.numeric={self.numeric}"
                )
        if any(not value > 0 for value in (self.deviations or {}).values()):
            raise ConfigError(f"data.deviations={dict(self.deviations or {})}: must be greater than 0")

    def schema(self) -> Schema:
        columns = self._columns
        scaling = Scaling("federated" if self.scaling == "federated" else "fixed")
        if self.scaling == "given":
            means, deviations = self.means or {}, self.deviations or {}
            # One-hot columns stay 0 and 1.
            offset = tuple(float(means.get(name, 0.0)) for name in columns.features)
            scaling = Scaling("fixed", offset, tuple(float(deviations.get(name, 1.0)) for name in columns.features))
        impute = self.missing == "mean"
        return Schema((len(columns.features),), columns.classes, columns.features, scaling, impute)

    def pooled(self) -> Pooled:
        if self.path is None:
            raise ConfigError("data.path=null: a simulation needs the whole table. Set data.path to a CSV file")
        examples, cells = self._load(self.path, whole=True)
        columns = {group: cells[group].tolist() for group in self._groups}
        if self.test_path is not None:
            return Pooled(examples, self._load(self.test_path)[0], columns)
        return hold_out(examples, fraction=self.test_fraction, seed=self.split_seed, name=self.path, columns=columns)

    def local(self, path: Path) -> Examples:
        return self._load(path)[0]

    def unlabelled(self, path: Path) -> tuple[Tensor, list[str]]:
        return self._columns.unlabelled(path, self.delimiter)

    def settled(self) -> dict[str, Any]:
        columns = self._columns
        return {
            "numeric": list(columns.numeric),
            "categorical": {column: list(values) for column, values in columns.categorical.items()},
            "classes": None if self.regression else list(columns.classes),
        }

    def test(self) -> Examples | None:
        if self.test_path is not None:
            return self._load(self.test_path)[0]
        return self.pooled().test if self.path is not None else None

    def _load(self, file: str | Path, whole: bool = False) -> tuple[Examples, "pd.DataFrame"]:
        """The rows of one file as examples, and their cells. The `whole` table must hold `group` and `ignore` too."""
        columns, name = self._columns, str(file)
        groups = self._groups if whole else ()
        cells = read_cells(Path(file).expanduser(), self.delimiter)
        columns.check(cells, name, *groups, *(self.ignore if whole else ()))
        cells = columns.complete(cells, name, *groups)
        return columns.encode(cells, name, *groups), cells

    @property
    def _groups(self) -> tuple[str, ...]:
        return () if self.group is None else (self.group,)

    @cached_property
    def _columns(self) -> Columns:
        numeric, categorical, classes = self._named()
        blanks = tuple(self.missing_values)
        if numeric is not None and categorical is not None and classes is not None:
            return Columns(self.label, numeric, categorical, classes, self.missing, blanks)
        cells, name = self._table_to_infer_from(), str(self.path)
        left_out = (self.label, *self._groups, *self.ignore)
        for column in left_out:
            if column not in cells.columns:
                raise DataError(f"{name}: no column {column!r}; it has {known(list(cells.columns))}")
        features = infer_features(
            cells, name, numeric=numeric, categorical=categorical, left_out=left_out, blanks=blanks
        )
        if classes is None:
            remedy = "list them in data.classes, or set data.regression=true if the label is a number"
            classes = distinct(cells[self.label], name, blanks, remedy)
            if len(classes) < 2:
                raise DataError(f"{name}: column {self.label!r} holds {known(classes)}; a label needs two classes")
        return Columns(self.label, *features, classes, self.missing, blanks)

    def _named(self) -> tuple[tuple[str, ...] | None, dict[str, tuple[str, ...]] | None, tuple[str, ...] | None]:
        """Numeric columns, categories and classes as configured; None: to be inferred. Raises ConfigError."""
        names(self.ignore, "data.ignore", at_least=0)
        numeric = None if self.numeric is None else names(self.numeric, "data.numeric", at_least=0)
        categorical = None
        if self.categorical is not None:
            categorical = {c: names(v, f"data.categorical.{c}", at_least=1) for c, v in self.categorical.items()}
        if self.regression:
            return numeric, categorical, ()
        return numeric, categorical, None if self.classes is None else names(self.classes, "data.classes", at_least=2)

    def _table_to_infer_from(self) -> "pd.DataFrame":
        named = zip(("numeric", "categorical", "classes"), self._named(), strict=True)
        keys = ", ".join(f"data.{key}" for key, value in named if value is None)
        if self.path is None:
            raise ConfigError(
                f"{keys}: must be set where data.path is not. Devices and server cannot infer columns, categories and"
                " classes, since nobody sees all the data"
            )
        path = Path(self.path).expanduser()
        if not path.exists():
            raise DataError(f"{path}: no such file. It is needed to infer {keys}, unless you set them")
        return read_cells(path, self.delimiter)
