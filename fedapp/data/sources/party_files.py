"""One table for each party of vertical learning: CSV or Parquet files of a simulation, or one on each device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fedapp.common.errors import ConfigError, DataError
from fedapp.data.checks import check_fraction, names
from fedapp.data.held_out import hold_out
from fedapp.data.party_reading import PartyReading
from fedapp.data.party_table import ANY, Cells, PartySource, PartyTable
from fedapp.data.source import Examples, Pooled, Schema
from fedapp.data.tables.columns import Columns
from fedapp.data.tables.infer import Given, classes_of, infer_kinds
from fedapp.data.tables.match import Blanks
from fedapp.data.tables.sheet import Form
from fedapp.data.tables.table import DataTable
from fedapp.data.tables.table_file import read_sheet
from fedapp.data.tables.text import clean

__all__ = ["PartyFiles", "parsed_keys"]

BLANKS = Blanks(("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "#N/A", "<NA>"))
FORM = Form(blanks=BLANKS)


@dataclass(frozen=True)
class PartyFiles(PartySource):
    """`parties`: by name, the party's file; null on devices, which name their own (`data-path`). `label`: the column of
    the party with the labels, `label_party`. `key`: the columns that identify a row to both sides of a pair; `keys`:
    those of the pair with one party, by its name. A device may give its own (`id-column`).

    All other columns but those in `ignore` are features, of numbers, dates or categories, as each party's own file
    shows. A missing number counts as the party's mean, a missing category as none.
    """

    parties: Mapping[str, str | None]
    label_party: str
    label: str
    key: str | Sequence[str] | None = None
    keys: Mapping[str, str | Sequence[str]] | None = None
    classes: Sequence[str | int] | None = None
    regression: bool = False
    ignore: Sequence[str] = ()
    as_category: Sequence[str] = ()
    max_categories: int = 50
    split_time: str | None = None
    test_fraction: float = 0.2
    split_seed: int = 0

    def __post_init__(self) -> None:
        check_fraction(self.test_fraction, "data.test_fraction")
        if self.test_fraction == 0:
            raise ConfigError("data.test_fraction=0: the label party judges the model on entities that it holds out")
        if self.label_party not in self.parties:
            raise ConfigError(f"data.label_party={self.label_party}: must be one of {', '.join(self.parties)}")
        if unknown := sorted(set(self.keys or {}) - set(self.parties)):
            raise ConfigError(f"data.keys.{unknown[0]}: is no party; parties are {', '.join(self.parties)}")
        for party, path in self.parties.items():
            if path is not None and not Path(path).expanduser().is_absolute():
                raise ConfigError(f"data.parties.{party}={path}: must be an absolute path")
        if self.regression and self.classes is not None:
            raise ConfigError("data.classes: regression has no classes. Set data.regression=false or data.classes=null")

    @property
    def party_names(self) -> tuple[str, ...]:
        return tuple(sorted(self.parties))

    @property
    def labelled(self) -> str:
        return self.label_party

    def schema(self) -> Schema:
        """Of the targets: the features are each party's own."""
        if self.regression:
            return Schema((1,))
        if self.classes is not None:
            return Schema((1,), names(self.classes, "data.classes", at_least=2))
        path = self.parties[self.label_party]
        if path is None:
            raise ConfigError("data.classes: must be set where the label party is on a device")
        return Schema((1,), classes_of(self._read(path), clean(self.label), self._given))

    def pooled(self) -> Pooled:
        raise DataError("data=party_files: the rows of several parties are no examples; it is for task=vertical")

    def table(self, party: str, label_party: str) -> PartyTable:
        if (path := self.parties[party]) is None:
            raise ConfigError(f"data.parties.{party}=null: a simulation needs the party's file")
        return self._table(path, party, label_party, {})

    def local_table(self, path: Path, party: str, label_party: str, key: str) -> PartyTable:
        return self._table(path, party, label_party, parsed_keys(key, party, label_party))

    def _table(self, path: str | Path, party: str, label_party: str, own: Mapping[str, Sequence[str]]) -> PartyTable:
        """`own`: a device's columns that identify a row, by the other party."""
        table = self._read(path)
        labels = party == label_party
        others = [name for name in self.party_names if name != party] if labels else [label_party]
        columns = {other: self._key(party, other, label_party, own) for other in others}
        used = list(dict.fromkeys(name for found in columns.values() for name in found))
        table.check(*used)
        cells = {other: [table.column(name).values() for name in found] for other, found in columns.items()}
        if labels:
            return self._labelled(table, party, cells, columns)
        kinds = infer_kinds(table, self._given, [*used, *self._ignored(table)])
        features = Columns(None, kinds.numeric, kinds.categorical, (), "mean", BLANKS, kinds.dates)
        inputs, _ = features.unlabelled(table)
        reading = PartyReading(features, features.features, columns, FORM)
        return PartyTable(party, inputs, features.features, cells, reading=reading)

    def _labelled(
        self, table: DataTable, party: str, cells: Mapping[str, Cells], keys: Mapping[str, tuple[str, ...]]
    ) -> PartyTable:
        label, time = clean(self.label), self.split_time and clean(self.split_time)
        table.check(label, *([time] if time else []))
        used = (name for found in keys.values() for name in found)
        left_out = [label, *used, *([time] if time else []), *self._ignored(table)]
        kinds = infer_kinds(table, self._given, left_out)
        columns = Columns(label, kinds.numeric, kinds.categorical, self.schema().classes, "mean", BLANKS, kinds.dates)
        examples = columns.encode(table)
        times = torch.from_numpy(columns.times(table, time)) if time else None
        rows = Examples(torch.arange(len(table))[:, None], examples.targets, times=times)
        test = hold_out(rows, fraction=self.test_fraction, seed=self.split_seed, name=table.name).test
        held_out = np.zeros(len(table), dtype=bool)
        if test is not None:
            held_out[test.inputs[:, 0].numpy()] = True
        reading = PartyReading(replace(columns, label=None, classes=()), columns.features, keys, FORM)
        held = torch.from_numpy(held_out)
        return PartyTable(party, examples.inputs, columns.features, cells, examples.targets, held, reading)

    def _key(self, party: str, other: str, label_party: str, own: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
        """The columns of `party`'s file that identify a row to `other`."""
        if found := own.get(other, own.get(ANY)):
            return tuple(map(clean, found))
        pair = other if party == label_party else party
        given = (self.keys or {}).get(pair, self.key)
        if given is None:
            raise ConfigError(f"data.key, data.keys.{pair}: name the column that identifies entities to {party}")
        return tuple(map(clean, [given] if isinstance(given, str) else given))

    def _ignored(self, table: DataTable) -> list[str]:
        return [name for name in map(clean, self.ignore) if name in table.names]

    @property
    def _given(self) -> Given:
        return Given(
            None, None, None, tuple(map(clean, self.as_category)), BLANKS, self.max_categories, may_be_none=True
        )

    def _read(self, path: str | Path) -> DataTable:
        return DataTable.of(str(path), [read_sheet(Path(path).expanduser(), FORM)])


def parsed_keys(text: str, party: str, label_party: str) -> dict[str, tuple[str, ...]]:
    """A device's `id-column`: "id", several columns as "origin+hour"; at the label party also by the other party, as in
    "planes=tailnum,weather=origin+hour". Empty where none is given."""
    found: dict[str, tuple[str, ...]] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        other, given, columns = item.partition("=")
        if given and party != label_party:
            raise DataError(f"node-config id-column={text}: a party without labels has one key")
        found[other if given else ANY] = tuple((columns if given else other).split("+"))
    return found
