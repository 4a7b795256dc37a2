"""Tables of series, such as sales by day or a sensor by second: windows of past rows that predict a later one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedapp.common.errors import ConfigError
from fedapp.data.findings import Findings
from fedapp.data.source import Examples, Scaling, Schema
from fedapp.data.sources.csv_table import CsvTable
from fedapp.data.tables.columns import Columns
from fedapp.data.tables.infer import Given
from fedapp.data.tables.sheet import Form
from fedapp.data.tables.table import DataTable
from fedapp.data.tables.text import clean
from fedapp.data.tables.windows import Windows, windows_of

__all__ = ["TimeSeries"]


@dataclass(frozen=True)
class TimeSeries(CsvTable):
    """Rows of a table in the order of `time`, `window` of them (or those at `lags`) an example.

    The label is that of the row `horizon` steps after the last row that is seen (0: of that row). `series` names the
    column that tells series apart, such as the shop; no window crosses from one to another. `lag_label`: the label's
    own past is seen as well. Test and validation data are the latest, unless `split_by` keeps people apart instead.
    Inputs are (features x steps,), feature by feature, the oldest step first. Raises ConfigError as `CsvTable` does.
    """

    time: str | None = None
    series: str | None = None
    window: int = 12
    horizon: int = 1
    lags: Sequence[int] | None = None
    lag_label: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.time is None:
            raise ConfigError("data.time=null: name the column of times or dates by which rows are in order")
        for key, value, least in (("window", self.window, 1), ("horizon", self.horizon, 0)):
            if value < least:
                raise ConfigError(f"data.{key}={value}: must be at least {least}")
        if self.lags is not None and (not self.lags or min(self.lags) < 0 or len(set(self.lags)) < len(self.lags)):
            raise ConfigError(f"data.lags={list(self.lags)}: must be different steps back, such as [0,1,7]")
        if self.missing == "drop":
            raise ConfigError("data.missing=drop: would tear series apart. Set data.missing=mean, or fill the table in")
        if self.lag_label and not self.regression:
            raise ConfigError("data.lag_label=true: needs a label that is a number. Set data.regression=true")
        if self.lag_label and (self.horizon < 1 or self.scaling == "given"):
            raise ConfigError(
                f"data.lag_label=true: needs data.horizon of at least 1, not {self.horizon}, and data.scaling=federated"
                " or none"
            )
        if self.split_time is not None:
            raise ConfigError(f"data.split_time={self.split_time}: is data.time here. Leave it null")

    def schema(self) -> Schema:
        rows, lags = super().schema(), self._lags
        scaling, columns = rows.scaling, rows.features
        if not isinstance(scaling.offset, float | int):
            assert not isinstance(scaling.scale, float | int)
            offsets, scales = (
                tuple(np.repeat(values, len(lags)).tolist()) for values in (scaling.offset, scaling.scale)
            )
            scaling = Scaling(scaling.kind, offsets, scales)
        if self.lag_label:
            columns = (*columns, *self.label_columns)
        features = tuple(f"{name}[-{lag + self.horizon}]" for name in columns for lag in lags)
        return replace(rows, input_shape=(len(features),), features=features, scaling=scaling, steps=len(lags))

    def unlabelled(self, path: Path) -> tuple[Tensor, list[str]]:
        """A window for each row that ends one; what is predicted lies `horizon` steps later."""
        columns = self._columns
        needed = [clean(name) for name in (self.time, self.series) if name is not None]
        table = self._read(path, *columns.inputs, *needed)
        table.check(*needed, *(self.label_columns if self.lag_label else []))
        rows, names = columns.unlabelled(table)
        if self.lag_label:
            past = torch.from_numpy(table.numbers(self.label_columns[0]).astype(np.float32))
            rows = torch.cat([rows, past.unsqueeze(1)], dim=1)
        found = self._windows(table, horizon=0)
        return _flat(rows, found), [names[row] for row in found.targets]

    def table_form(self) -> tuple[Columns, Form] | None:
        return None  # a feature is of another row than its example

    def findings(self) -> Findings:
        found = super().findings()
        if self.path is None:
            return found
        count = len(self._windows(self._whole, self.horizon).targets)
        steps = ", ".join(str(lag + self.horizon) for lag in self._lags)
        what = f"windows     {count}: the rows {steps} steps before the target"
        return replace(found, facts=(*found.facts, what))

    @cached_property
    def given(self) -> Given:
        return replace(super().given, may_be_none=self.lag_label)

    @property
    def _lags(self) -> list[int]:
        """Steps before the last row that is seen, the oldest first."""
        return sorted(range(self.window) if self.lags is None else self.lags, reverse=True)

    @property
    def _split_keys(self) -> dict[str, str]:
        own = {"time": self.time, "series": self.series}
        return {clean(name): f"data.{key}" for key, name in own.items() if name is not None} | super()._split_keys

    def _encoded(self, table: DataTable, *groups: str) -> tuple[Examples, DataTable]:
        own = [clean(name) for name in (self.time, self.series) if name is not None]
        rows, table = super()._encoded(table, *dict.fromkeys((*groups, *own)))
        found = self._windows(table, self.horizon)
        inputs = rows.inputs
        if self.lag_label:
            inputs = torch.cat([inputs, rows.targets.unsqueeze(1)], dim=1)
        targets = rows.take(torch.from_numpy(found.targets))
        # By person: whoever is held out is drawn; else what comes last is.
        times = None if self.split_by is not None else torch.from_numpy(self._times(table)[found.targets])
        kept = np.zeros(len(table), dtype=bool)
        kept[found.targets] = True
        return replace(targets, inputs=_flat(inputs, found), times=times), table.only(kept)

    def _windows(self, table: DataTable, horizon: int) -> Windows:
        series: NDArray[Any] = np.zeros(len(table), dtype=np.int64)
        if self.series is not None:
            series = table.column(clean(self.series)).codes.astype(np.int64)
        lags = np.array(self._lags, dtype=np.int64)
        return windows_of(table, series, self._times(table), lags, horizon, clean(str(self.time)))

    def _times(self, table: DataTable) -> NDArray[np.float64]:
        return self._columns.times(table, clean(str(self.time)))


def _flat(rows: Tensor, found: Windows) -> Tensor:
    """Rows (n, features) as windows (m, features x steps)."""
    return rows[torch.from_numpy(found.inputs)].transpose(1, 2).flatten(1).contiguous()
