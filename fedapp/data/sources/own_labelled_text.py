"""Labelled texts of your own: JSON lines, or a table (CSV, Parquet) with a text and a label in each row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from fedapp.common.errors import ConfigError, DataError
from fedapp.data.checks import known, names
from fedapp.data.source import Examples, Pooled
from fedapp.data.tables.match import Matcher
from fedapp.data.tables.table_file import read_numbers
from fedapp.data.text.labelled_text import LabelledText
from fedapp.data.text.own_file import OwnFile
from fedapp.data.text.text_files import JSON_LINES, json_rows

__all__ = ["OwnLabelledText"]

Row = tuple[str, dict[str, str]]  # where it is, for messages, and its cells


@dataclass(frozen=True, kw_only=True)
class OwnLabelledText(OwnFile, LabelledText):
    """`path`: a file, in a simulation of all clients; on a device the one at its data-path. `text`, `label` and `user`
    name columns or keys; `user`, where rows have it, is whom partition=natural gives them to. `classes` are the labels,
    given here so that devices and server know them. `test_path` is such a file."""

    forms: ClassVar[str] = "a file of JSON lines, CSV or Parquet"
    classes: Sequence[str | int]
    text: str = "text"
    label: str = "label"
    user: str = "user"

    def __post_init__(self) -> None:
        super().__post_init__()
        names(self.classes, "data.classes", at_least=2)
        if len({self.text, self.label, self.user}) < 3:
            raise ConfigError(f"data.text={self.text}, data.label={self.label}, data.user={self.user}: must differ")

    def labels(self) -> tuple[str, ...]:
        return names(self.classes, "data.classes", at_least=2)

    def of_all(self, path: Path) -> Pooled:
        return self.by_user(list(rows_of(path, (self.text, self.label))), str(path))

    def by_user(self, rows: Sequence[Row], name: str) -> Pooled:
        """Whose rows these are; without a user, nobody's in particular."""
        users = [row.get(self.user, "") for _, row in rows]
        if not any(users) and self.test_clients:
            raise DataError(
                f"{name}: has no {self.user!r}, so data.test_clients={self.test_clients} cannot be held out"
            )
        found: dict[str, list[tuple[str, int]]] = {}
        for user, pair in zip(users, self.read(rows, name), strict=True):
            found.setdefault(user, []).append(pair)
        return self.split_by_owner(found, name)

    def local(self, path: Path) -> Examples:
        return self.examples_of(self.read(list(rows_of(path, (self.text, self.label))), str(path)))

    def unlabelled(self, path: Path) -> tuple[Tensor, list[str]]:
        """Of a table or JSON lines the texts; of a text file its lines."""
        if path.suffix.lower() == ".txt":
            return super().unlabelled(path)
        rows = list(rows_of(path, (self.text,)))
        inputs = self.inputs_of([self._text(where, row) for where, row in rows])
        return inputs, [str(number) for number in range(1, len(rows) + 1)]

    def read(self, rows: Sequence[Row], name: str) -> list[tuple[str, int]]:
        """Texts with the indices of their labels. Raises DataError, opening with `name`."""
        if not rows:
            raise DataError(f"{name}: holds no rows")
        matcher, found = Matcher(self.labels()), []
        for where, row in rows:
            if (index := matcher.index(row.get(self.label, ""))) < 0:
                raise DataError(
                    f"{where}: {self.label} {row.get(self.label)!r} is no known label; known: {known(self.labels())}."
                    " Correct data.classes or the row"
                )
            found.append((self._text(where, row), index))
        return found

    def _text(self, where: str, row: dict[str, str]) -> str:
        if not row.get(self.text, "").strip():
            raise DataError(f"{where}: has no {self.text!r}; leave the row out, or correct data.text")
        return row[self.text]


def rows_of(path: Path, needed: Sequence[str]) -> Iterator[Row]:
    """The rows of a file of JSON lines, CSV or Parquet. Raises DataError, opening with the path."""
    if path.suffix.lower() in JSON_LINES:
        for number, row in json_rows(path):
            yield f"{path}, line {number}", {key: _cell(value) for key, value in row.items()}
        return
    table = read_numbers(path, needed)
    table.check(*needed)
    columns = {name: table.column(name).values() for name in table.names}
    for at, number in enumerate(table.rows):
        yield f"{path}, row {number}", {name: values[at] for name, values in columns.items()}


def _cell(value: object) -> str:
    """Text and numbers as they are written; anything else is none."""
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
