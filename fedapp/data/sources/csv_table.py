"""A table as a CSV or Parquet file: one that a simulation splits over its clients, or one on each device."""

from dataclasses import dataclass, replace
from functools import cached_property
from glob import has_magic
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedapp.common.errors import ConfigError, DataError
from fedapp.data.findings import Findings
from fedapp.data.held_out import hold_out
from fedapp.data.source import DataSource, Examples, Pooled, Scaling, Schema
from fedapp.data.tables import delimiter as delimiters
from fedapp.data.tables.columns import Columns
from fedapp.data.tables.infer import Given, classes_of, infer_kinds
from fedapp.data.tables.judge import table_findings
from fedapp.data.tables.several_labels import SeveralLabels, listed_labels
from fedapp.data.tables.sheet import Form
from fedapp.data.tables.sites import site_files
from fedapp.data.tables.table import DataTable
from fedapp.data.tables.table_file import read_sheet
from fedapp.data.tables.table_options import TableOptions, named_classes
from fedapp.data.tables.text import clean

__all__ = ["CsvTable"]


@dataclass(frozen=True)
class CsvTable(TableOptions, DataSource):
    """Rows of a CSV or Parquet file with names of columns, as examples, as `TableOptions` say."""

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
        table.check(*self.split_columns, *self.ignored_columns)
        examples, table = self._encoded(table, *self.split_columns)
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
        return table_findings(self._whole, self._columns, self.split_columns)

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
        form = self._form(*(expected or self.label_columns))
        return DataTable.of(str(file), [read_sheet(one, form, site) for site, one in site_files(path).items()])

    def table_form(self) -> tuple[Columns, Form] | None:
        return replace(self._columns, label=None, classes=(), several=None), self._form()

    def _form(self, *expected: str) -> Form:
        delimiter = self.delimiter and delimiters.NAMES.get(self.delimiter, self.delimiter)
        marks = (self.decimal, self.thousands, self.encoding, self.day_first)
        return Form(delimiter, *marks, self.blanks, frozenset(expected))

    def from_rows(self) -> tuple[str, ...]:
        usual = {"delimiter": "','", "decimal": ".", "thousands": "''", "encoding": "utf-8"}
        usual |= {"day_first": "false"} if self.dates else {}
        return tuple(f"data.{key}={value}" for key, value in usual.items() if getattr(self, key) is None)

    @cached_property
    def _columns(self) -> Columns:
        named = self.given
        classes = () if self.regression or not isinstance(self.label, str) else named_classes(self.classes)
        kinds = named.complete()
        if kinds is None or classes is None:
            table = self._table_to_infer_from(named, classes)
            left_out = (*self.label_columns, *self.split_columns, *self.ignored_columns, *table.own_columns)
            table.check(*left_out)
            kinds = kinds or infer_kinds(table, named, left_out)
            classes = self._found_classes(table, named) if classes is None else classes
        return Columns(
            self.one_label,
            kinds.numeric,
            kinds.categorical,
            classes if self.one_label is not None else (),
            self.missing,
            self.blanks,
            kinds.dates,
            self.ignore_case,
            self._several(classes),
        )

    def _found_classes(self, table: DataTable, named: Given) -> tuple[str, ...]:
        column = self.label_columns[0]
        if self.label_separator is None:
            return classes_of(table, column, named)
        return listed_labels(table, column, self.label_separator, self.nothing, named)

    def _several(self, listed: tuple[str, ...]) -> SeveralLabels | None:
        """`listed`: the labels of a column of lists."""
        columns = self.label_columns
        if self.one_label is not None:
            return None
        if self.label_separator is None:
            return SeveralLabels(columns, self.blanks)
        return SeveralLabels(listed, self.blanks, columns[0], self.label_separator, self.nothing, self.ignore_case)

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
