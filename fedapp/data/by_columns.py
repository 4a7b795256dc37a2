"""The columns of one table dealt out to parties, for simulations of vertical learning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property

import torch

from fedapp.common.errors import ConfigError
from fedapp.data.checks import known
from fedapp.data.party_reading import PartyReading
from fedapp.data.party_table import ANY, PartySource, PartyTable
from fedapp.data.source import DataSource, Examples, Pooled, Schema

__all__ = ["ByColumns", "TableInColumns"]


@dataclass(frozen=True)
class ByColumns:
    """`parties`: by party, its columns, by name or by patterns such as "mean *"; None: as the data set itself
    groups its columns."""

    parties: Mapping[str, str | Sequence[str]] | None = None

    def deal(self, source: DataSource) -> PartySource:
        """Raises ConfigError for a data set that has no columns, or whose columns are not each with one party."""
        if isinstance(source, PartySource):
            if self.parties is not None:
                raise ConfigError(
                    f"partition.parties: {type(source).__name__} says itself which party holds which columns; leave it"
                    " null"
                )
            return source
        groups = self.parties or source.column_groups()
        if not groups:
            raise ConfigError(
                "partition.parties: name the columns of each party, e.g."
                " partition.parties={bank:[age,income],shop:'spent*'}"
            )
        return TableInColumns(source, {name: _listed(found) for name, found in sorted(groups.items())})


def _listed(found: str | Sequence[str]) -> tuple[str, ...]:
    return (found,) if isinstance(found, str) else tuple(found)


@dataclass(frozen=True)
class TableInColumns(PartySource):
    """`groups`: by party, its columns or patterns of them. Rows are identified by their number: every party has all."""

    source: DataSource
    groups: Mapping[str, tuple[str, ...]]

    @property
    def party_names(self) -> tuple[str, ...]:
        return tuple(sorted(self.groups))

    @property
    def labelled(self) -> str:
        own = self.source.label_group()
        return own if own is not None and own in self.groups else self.party_names[0]

    def schema(self) -> Schema:
        return self.source.schema()

    def pooled(self) -> Pooled:
        return self.source.pooled()

    def table(self, party: str, label_party: str) -> PartyTable:
        examples, held_out = self._rows
        columns = self._columns[party]
        features, inputs = self.schema().features, examples.inputs[:, list(columns)].float().contiguous()
        rows = [str(row) for row in range(len(examples))]
        labels, own = party == label_party, tuple(features[column] for column in columns)
        return PartyTable(
            party,
            inputs,
            own,
            {ANY: [rows]},
            examples.targets if labels else None,
            held_out if labels else None,
            self._reading(own),
        )

    def _reading(self, own: tuple[str, ...]) -> PartyReading | None:
        """How a party's file of new rows is read, which has the columns that its features are made from. Rows are
        identified by their number in the files."""
        if (found := self.source.table_form()) is None:
            return None
        columns, form = found
        taken = replace(
            columns,
            numeric=tuple(name for name in columns.numeric if name in own),
            dates=tuple(name for name in columns.dates if name in own),
            categorical={
                name: values
                for name, values in columns.categorical.items()
                if any(f"{name}={value}" in own for value in values)
            },
        )
        # No row lacks a value where there is no column.
        return PartyReading(taken if taken.inputs else replace(taken, missing="error"), own, {ANY: ()}, form)

    @cached_property
    def _rows(self) -> tuple[Examples, torch.Tensor]:
        pooled = self.source.pooled()
        test = pooled.test if pooled.test is not None else pooled.train.span(0, 0)
        examples = Examples(
            torch.cat([pooled.train.inputs, test.inputs]), torch.cat([pooled.train.targets, test.targets])
        )
        return examples, torch.arange(len(examples)) >= len(pooled.train)

    @cached_property
    def _columns(self) -> Mapping[str, tuple[int, ...]]:
        features, taken, found = self.schema().features, dict[str, str](), dict[str, tuple[int, ...]]()
        if not features:
            raise ConfigError("partition=columns: the data has no columns; it is for tables")
        for party, patterns in self.groups.items():
            for pattern in patterns:
                mine = [name for name in features if _fits(name, pattern)]
                if not mine:
                    raise ConfigError(
                        f"partition.parties.{party}={pattern}: the data has no such column; it has {known(features)}"
                    )
                for name in mine:
                    if (other := taken.setdefault(name, party)) != party:
                        raise ConfigError(f"partition.parties.{party}={pattern}: column {name!r} is {other}'s already")
            found[party] = tuple(at for at, name in enumerate(features) if taken.get(name) == party)
        if left := [name for name in features if name not in taken]:
            raise ConfigError(f"partition.parties: column {left[0]!r} belongs to no party; name it, or a pattern")
        return found


def _fits(name: str, pattern: str) -> bool:
    """A one-hot column such as sex=f is of the column sex."""
    return fnmatchcase(name, pattern) or fnmatchcase(name.partition("=")[0], pattern)
