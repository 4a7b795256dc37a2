"""Several labels of a row: a column of 0 and 1 for each, or one column that lists them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedapp.common.errors import ConfigError, DataError
from fedapp.common.override_text import pasted
from fedapp.data.checks import known
from fedapp.data.tables.infer import Given, distinct
from fedapp.data.tables.match import Blanks, Matcher
from fedapp.data.tables.table import DataTable
from fedapp.data.tables.text import clean, look

__all__ = ["SeveralLabels", "check_labels", "listed_labels"]

YES, NO = {"1", "true", "yes", "y", "t"}, {"0", "false", "no", "n", "f"}


@dataclass(frozen=True)
class SeveralLabels:
    """`names` are the labels. Without `separator` each is a column whose cells are 0 or 1, true or false, yes or no;
    with it `column` lists a row's labels, and `none` is what it says where there is none (None: that does not occur).
    `blanks` are texts of a missing value."""

    names: tuple[str, ...]
    blanks: Blanks
    column: str = ""
    separator: str = ""
    none: str | None = None
    ignore_case: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,) if self.separator else self.names

    def blanks_of(self, column: str) -> Blanks:
        """What is a missing value there: a text that says that a row has no label is none."""
        return self.blanks if self.none is None else self.blanks.without([self.none])

    def targets(self, table: DataTable) -> NDArray[np.float32]:
        """(n, labels) of 0 and 1. Raises DataError, naming column and row, for a cell that says neither."""
        return self._listed(table) if self.separator else self._by_column(table)

    def counts(self, table: DataTable) -> Mapping[str, int]:
        """By label, how many rows have it; rows that lack a value are passed over."""
        filled = [~table.column(name).blank(self.blanks_of(name)) for name in self.columns]
        targets = self.targets(table.only(np.all(filled, axis=0)))
        return dict(zip(self.names, targets.sum(0).astype(int).tolist(), strict=True))

    def _by_column(self, table: DataTable) -> NDArray[np.float32]:
        matcher, found = Matcher(("0", "1")), np.zeros((len(table), len(self.names)), dtype=np.float32)
        for at, name in enumerate(self.names):
            column = table.column(name)
            codes = np.array([_truth(matcher, text) for text in column.texts], dtype=np.int64)[column.codes]
            table.refuse(
                codes < 0,
                name,
                "is neither 0 nor 1, true nor false, yes nor no, and data.label names the column as one of several"
                " labels. Correct the cell; or name one column in data.label, if it is the only one to predict",
            )
            found[:, at] = codes
        return found

    def _listed(self, table: DataTable) -> NDArray[np.float32]:
        column, matcher = table.column(self.column), Matcher(self.names, self.ignore_case)
        by_text = np.zeros((len(column.texts), len(self.names)), dtype=np.float32)
        bad = np.zeros(len(column.texts), dtype=bool)
        for at, text in enumerate(column.texts):
            codes = [matcher.index(label) for label in parts(text, self.separator, self.none)]
            bad[at] = -1 in codes
            by_text[at, [code for code in codes if code >= 0]] = 1.0
        table.refuse(
            bad[column.codes],
            self.column,
            f"lists, between {self.separator!r}, what is no known label; known: {known(self.names)}. Correct the cell,"
            " or list the label in data.classes",
        )
        return by_text[column.codes]


def check_labels(
    label: str | Sequence[str],
    separator: str | None,
    no_label: str | None,
    classes: Sequence[str | int] | None,
    regression: bool,
) -> None:
    """Raises ConfigError, naming the key, where what a table's labels are is said in ways that contradict each
    other."""
    several = not isinstance(label, str)
    if regression and (several or separator is not None):
        raise ConfigError("data.regression=true: predicts one number; name one column in data.label, without lists")
    if several and classes is not None:
        raise ConfigError(f"data.classes: the labels are the columns data.label={list(label)}; leave it null")
    if several and separator is not None:
        raise ConfigError(
            f"data.label_separator={separator!r}: is for one column that lists labels; data.label names {len(label)}"
        )
    if separator is not None and (not separator.strip() or separator.isalnum()):
        raise ConfigError(f"data.label_separator={separator!r}: must be a mark such as ';' or '|'")
    if no_label is not None and separator is None:
        raise ConfigError(
            f"data.no_label={no_label!r}: is for a column that lists several labels; set data.label_separator"
        )


def listed_labels(table: DataTable, column: str, separator: str, none: str | None, given: Given) -> tuple[str, ...]:
    """The sorted labels that a column lists. Raises DataError for fewer than two, and for too many."""
    blanks = given.blanks if none is None else given.blanks.without([none])
    texts = table.column(column).filled(blanks)
    remedy = "list those that count in data.classes, or raise data.max_categories; or correct data.label_separator"
    labels = distinct(table, column, [part for text in texts for part in parts(text, separator, none)], given, remedy)
    if len(labels) < 2:
        raise DataError(
            f"{table.name}: column {column!r} lists {known(labels)} between {separator!r}; several labels are two or"
            f" more. Correct {pasted('data.label_separator', separator)}, or leave it out if a row has one label"
        )
    return labels


def parts(text: str, separator: str, none: str | None) -> Sequence[str]:
    """The labels that a cell lists; spaces around them, and separators with nothing between them, are passed over."""
    if text == none:
        return []
    return [part for part in map(clean, text.split(separator)) if part]


def _truth(matcher: Matcher, text: str) -> int:
    said = look(text)
    return 1 if said in YES else 0 if said in NO else matcher.index(text)
