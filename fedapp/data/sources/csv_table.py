"""A table as a CSV or Parquet file: one that a simulation splits over its clients, or one on each device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from glob import has_magic
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from fedapp.common.errors import ConfigError, DataError
from fedapp.data.checks import check_choice, check_fraction, check_roles, names
from fedapp.data.findings import Findings
from fedapp.data.held_out import hold_out
from fedapp.data.source import DataSource, Examples, Pooled, Scaling, Schema
from fedapp.data.tables import delimiter as delimiters
from fedapp.data.tables.columns import Columns, Missing
from fedapp.data.tables.infer import Given, classes_of, infer_kinds
from fedapp.data.tables.judge import table_findings
from fedapp.data.tables.match import Blanks
from fedapp.data.tables.numerals import DECIMALS, THOUSANDS
from fedapp.data.tables.several_labels import SeveralLabels, check_labels, listed_labels
from fedapp.data.tables.sheet import Form
from fedapp.data.tables.sites import site_files
from fedapp.data.tables.table import DataTable
from fedapp.data.tables.table_file import read_sheet
from fedapp.data.tables.text import clean

__all__ = ["CsvTable"]


@dataclass(frozen=True)
class CsvTable(DataSource):
    """Rows of a CSV or Parquet file with names of columns, as examples.

    `label` is a column; or several of 0 and 1, each a label that a row has or not; or with `label_separator` a column
    that lists any number of labels, where `no_label` stands for none.

    `path` is the whole table of a simulation, also as a folder or a pattern of files, one a site: then a column `site`
    names each row's, unless the files have one. `test_path` is the server's held-out table (None: `test_fraction` of
    `path`). A device names its own file in its node-config. `numeric`, `dates`, `categorical` (column to categories)
    and `classes` are inferred from `path` where they are None; on devices all must be given, but for `dates`.
    `as_category` names columns whose values are categories even if they look like numbers. `group` names a column
    that is no feature but can split a simulation's table, such as the hospital. `split_by` names one whose rows no
    split separates, such as the patient, `split_time` a time or date: what is held out comes last. `missing` says
    what becomes of a missing value: an error; the row is dropped; or NaN for the model to replace by the federated mean
    (a missing category then belongs to no category). `delimiter`, `decimal`, `thousands`, `encoding` and `day_first`
    say how cells are written; None: as each file shows. Raises ConfigError for settings that contradict each other.
    """

    label: str | Sequence[str]
    path: str | None = None
    label_separator: str | None = None
    no_label: str | None = None
    classes: Sequence[str | int] | None = None
    numeric: Sequence[str] | None = None
    categorical: Mapping[str, Sequence[str | int]] | None = None
    dates: Sequence[str] | None = None
    as_category: Sequence[str] = ()
    ignore: Sequence[str] = ()
    group: str | None = None
    split_by: str | None = None
    split_time: str | None = None
    missing: Missing = "error"
    missing_values: Sequence[str | int | float] = ("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "#N/A", "<NA>")
    more_missing_values: Sequence[str | int | float] = ()
    ignore_case: bool = False
    max_categories: int = 50
    regression: bool = False
    scaling: Literal["federated", "given", "none"] = "federated"
    means: Mapping[str, float] | None = None
    deviations: Mapping[str, float] | None = None
    delimiter: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    encoding: str | None = None
    day_first: bool | None = None
    test_path: str | None = None
    test_fraction: float = 0.2
    split_seed: int = 0

    def __post_init__(self) -> None:
        check_fraction(self.test_fraction, "data.test_fraction")
        check_choice(self.missing, get_args(Missing), "data.missing")
        check_choice(self.scaling, ("federated", "given", "none"), "data.scaling")
        self._check_given()
        self._check_form()
        if self.missing == "mean" and self.scaling == "none":
            raise ConfigError(
                "data.missing=mean, data.scaling=none: the mean is known from scaling only. Set data.scaling=federated,"
                " or data.missing=drop"
            )
        if self.regression and self.classes is not None:
            raise ConfigError("data.classes: regression has no classes. Set data.regression=false or data.classes=null")
        named = self._named
        check_roles(
            [
                ("data.label", self._label_columns),
                *((key, [name]) for name, key in self._split_columns.items()),
                ("data.numeric", named.numeric or ()),
                ("data.dates", named.dates or ()),
                ("data.categorical", list(named.categorical or {})),
                ("data.as_category", named.as_category),
                ("data.ignore", self._ignored),
            ]
        )
        found = named.complete()
        if found is not None and not (found.numeric or found.categorical or found.dates or named.may_be_none):
            raise ConfigError("data.numeric=[], data.categorical={}: no feature is left. Name at least one column")
        if not self.regression:
            named_classes(self.classes)
        check_labels(self.label, self.label_separator, self.no_label, self.classes, self.regression)

    def _check_form(self) -> None:
        if self.delimiter is not None and len(delimiters.NAMES.get(self.delimiter, self.delimiter)) != 1:
            raise ConfigError(
                f"data.delimiter={self.delimiter!r}: must be one character, such as ',' or ';', or tab; null: as the"
                " file shows"
            )
        if self.max_categories < 1:
            raise ConfigError(f"data.max_categories={self.max_categories}: must be at least 1")
        if self.decimal is not None:
            check_choice(self.decimal, DECIMALS, "data.decimal")
        if self.thousands is not None:
            check_choice(self.thousands, ("", *THOUSANDS), "data.thousands")
        if self.decimal is not None and self.decimal == self.thousands:
            raise ConfigError(f"data.decimal={self.decimal!r}, data.thousands={self.thousands!r}: cannot be the same")
        if self.encoding is not None:
            try:
                text = "a".encode(self.encoding).decode(self.encoding) == "a"
            except (LookupError, UnicodeError, ValueError):
                text = False
            if not text:
                raise ConfigError(
                    f"data.encoding={self.encoding!r}: no such encoding. Give one such as utf-8, cp1252 or gb18030"
                )

    def _check_given(self) -> None:
        """Constants for every column of numbers or dates where the config gives them, and nowhere else."""
        if self.scaling != "given":
            if self.means is not None or self.deviations is not None:
                raise ConfigError(f"data.means, data.deviations: have no effect under data.scaling={self.scaling}")
            return
        if self.numeric is None:
            raise ConfigError("data.scaling=given: list the columns of numbers in data.numeric")
        scaled = [*self.numeric, *(self.dates or ())]
        for name, given in (("means", self.means), ("deviations", self.deviations)):
            if set(given or {}) != set(scaled):
                raise ConfigError(f"data.{name}={dict(given or {})}: needs a value for each of data.numeric={scaled}")
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
        labels = () if columns.several is None else columns.several.names
        return Schema((len(columns.features),), columns.classes, columns.features, scaling, impute, labels=labels)

    def pooled(self) -> Pooled:
        if self.path is None:
            raise ConfigError("data.path=null: a simulation needs the whole table. Set data.path to a CSV file")
        table = self._whole
        table.check(*self._groups, *self._ignored)
        examples, table = self._encoded(table, *self._groups)
        named = [] if self.group is None else [clean(self.group)]
        columns = {name: table.column(name).values() for name in dict.fromkeys([*named, *table.own_columns])}
        if self.test_path is not None:
            return Pooled(examples, self._encoded(self._read(self.test_path))[0], columns)
        return hold_out(examples, fraction=self.test_fraction, seed=self.split_seed, name=self.path, columns=columns)

    def local(self, path: Path) -> Examples:
        return self._encoded(self._read(path))[0]

    def unlabelled(self, path: Path) -> tuple[Tensor, list[str]]:
        return self._columns.unlabelled(self._read(path, *self._columns.inputs))

    def settled(self) -> dict[str, Any]:
        columns = self._columns
        return {
            "numeric": list(columns.numeric),
            "dates": list(columns.dates),
            "categorical": {column: list(values) for column, values in columns.categorical.items()},
            "as_category": [],
            "classes": self._settled_classes,
        }

    @property
    def _settled_classes(self) -> list[str] | None:
        if self.regression or not isinstance(self.label, str):
            return None
        several = self._columns.several
        return list(self._columns.classes if several is None else several.names)

    def findings(self) -> Findings:
        if self.path is None:
            return Findings()
        return table_findings(self._whole, self._columns, self._groups)

    def test(self) -> Examples | None:
        if self.test_path is not None:
            return self._encoded(self._read(self.test_path))[0]
        return self.pooled().test if self.path is not None else None

    def _encoded(self, table: DataTable, *groups: str) -> tuple[Examples, DataTable]:
        """The rows as examples, and the table without the rows that were dropped. The `groups` must be filled, too."""
        by, time = (None if name is None else clean(name) for name in (self.split_by, self.split_time))
        groups = tuple(dict.fromkeys((*groups, *(name for name in (by, time) if name is not None))))
        table.check(*self._columns.used, *groups)
        table = self._columns.complete(table, *groups)
        examples = self._columns.encode(table, *groups)
        codes = None if by is None else torch.from_numpy(table.column(by).codes.astype(np.int64))
        times = None if time is None else torch.from_numpy(self._columns.times(table, time))
        return replace(examples, groups=codes, times=times), table

    def _read(self, file: str | Path, *expected: str) -> DataTable:
        """`expected` are columns that must be there: the label, unless some are named."""
        path = Path(file).expanduser()
        form = self._form(*(expected or self._label_columns))
        return DataTable.of(str(file), [read_sheet(one, form, site) for site, one in site_files(path).items()])

    def table_form(self) -> tuple[Columns, Form] | None:
        return replace(self._columns, label=None, classes=(), several=None), self._form()

    def _form(self, *expected: str) -> Form:
        delimiter = self.delimiter and delimiters.NAMES.get(self.delimiter, self.delimiter)
        marks = (self.decimal, self.thousands, self.encoding, self.day_first)
        return Form(delimiter, *marks, self._blanks, frozenset(expected))

    def from_rows(self) -> tuple[str, ...]:
        usual = {"delimiter": "','", "decimal": ".", "thousands": "''", "encoding": "utf-8"}
        usual |= {"day_first": "false"} if self.dates else {}
        return tuple(f"data.{key}={value}" for key, value in usual.items() if getattr(self, key) is None)

    @property
    def _blanks(self) -> Blanks:
        return Blanks(tuple(clean(str(value)) for value in (*self.missing_values, *self.more_missing_values)))

    @property
    def _label(self) -> str | None:
        """The one column of the label; None: several labels at once."""
        return clean(self.label) if isinstance(self.label, str) and self.label_separator is None else None

    @property
    def _label_columns(self) -> tuple[str, ...]:
        return (clean(self.label),) if isinstance(self.label, str) else names(self.label, "data.label", at_least=2)

    @property
    def _groups(self) -> tuple[str, ...]:
        """Columns that are no features, and by which clients, test or validation data are split."""
        return tuple(self._split_columns)

    @property
    def _split_columns(self) -> dict[str, str]:
        """By column, the first key that names it."""
        named = {"split_time": self.split_time, "split_by": self.split_by, "group": self.group}
        return {clean(name): f"data.{key}" for key, name in named.items() if name is not None}

    @property
    def _ignored(self) -> tuple[str, ...]:
        return tuple(map(clean, self.ignore))

    @cached_property
    def _columns(self) -> Columns:
        named = self._named
        classes = () if self.regression or not isinstance(self.label, str) else named_classes(self.classes)
        kinds = named.complete()
        if kinds is None or classes is None:
            table = self._table_to_infer_from(named, classes)
            left_out = (*self._label_columns, *self._groups, *self._ignored, *table.own_columns)
            table.check(*left_out)
            kinds = kinds or infer_kinds(table, named, left_out)
            classes = self._found_classes(table, named) if classes is None else classes
        return Columns(
            self._label,
            kinds.numeric,
            kinds.categorical,
            classes if self._label is not None else (),
            self.missing,
            self._blanks,
            kinds.dates,
            self.ignore_case,
            self._several(classes),
        )

    def _found_classes(self, table: DataTable, named: Given) -> tuple[str, ...]:
        column = self._label_columns[0]
        if self.label_separator is None:
            return classes_of(table, column, named)
        return listed_labels(table, column, self.label_separator, self._none, named)

    def _several(self, listed: tuple[str, ...]) -> SeveralLabels | None:
        """`listed`: the labels of a column of lists."""
        columns = self._label_columns
        if self._label is not None:
            return None
        if self.label_separator is None:
            return SeveralLabels(columns, self._blanks)
        return SeveralLabels(listed, self._blanks, columns[0], self.label_separator, self._none, self.ignore_case)

    @property
    def _none(self) -> str | None:
        return None if self.no_label is None else clean(self.no_label)

    @cached_property
    def _named(self) -> Given:
        """Columns as configured; None: to be inferred. Raises ConfigError."""
        names(self.ignore, "data.ignore", at_least=0)
        categorical = None
        if self.categorical is not None:
            categorical = {
                clean(str(c)): names(v, f"data.categorical.{c}", at_least=1) for c, v in self.categorical.items()
            }
        return Given(
            None if self.numeric is None else names(self.numeric, "data.numeric", at_least=0),
            None if self.dates is None else names(self.dates, "data.dates", at_least=0),
            categorical,
            names(self.as_category, "data.as_category", at_least=0),
            self._blanks,
            self.max_categories,
            self.ignore_case,
        )

    def _table_to_infer_from(self, named: Given, classes: tuple[str, ...] | None) -> DataTable:
        wanted = (("numeric", named.numeric), ("categorical", named.categorical), ("classes", classes))
        keys = ", ".join(f"data.{key}" for key, value in wanted if value is None) or "data.as_category"
        if self.path is None:
            raise ConfigError(
                f"{keys}: must be set where data.path is not. Devices and server cannot infer columns, categories and"
                " classes, since nobody sees all the data"
            )
        path = Path(self.path).expanduser()
        if not path.exists() and not has_magic(self.path):
            raise DataError(f"{path}: no such file. It is needed to infer {keys}, unless you set them")
        return self._whole

    @cached_property
    def _whole(self) -> DataTable:
        return self._read(str(self.path))


def named_classes(given: Sequence[str | int] | None) -> tuple[str, ...] | None:
    return None if given is None else names(given, "data.classes", at_least=2)
