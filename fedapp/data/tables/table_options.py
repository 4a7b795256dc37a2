"""How a table is read: which columns are what, how cells are written, and what is held out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from fedapp.common.errors import ConfigError
from fedapp.data.checks import check_choice, check_fraction, check_roles, names
from fedapp.data.tables import delimiter as delimiters
from fedapp.data.tables.columns import Missing
from fedapp.data.tables.infer import Given
from fedapp.data.tables.match import Blanks
from fedapp.data.tables.numerals import DECIMALS, THOUSANDS
from fedapp.data.tables.several_labels import check_labels
from fedapp.data.tables.text import clean

__all__ = ["TableOptions", "named_classes"]


@dataclass(frozen=True)
class TableOptions:
    """The options of a table, checked against each other.

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
        named = self.given
        check_roles(
            [
                ("data.label", self.label_columns),
                *((key, [name]) for name, key in self._split_keys.items()),
                ("data.numeric", named.numeric or ()),
                ("data.dates", named.dates or ()),
                ("data.categorical", list(named.categorical or {})),
                ("data.as_category", named.as_category),
                ("data.ignore", self.ignored_columns),
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

    @property
    def blanks(self) -> Blanks:
        return Blanks(tuple(clean(str(value)) for value in (*self.missing_values, *self.more_missing_values)))

    @property
    def one_label(self) -> str | None:
        """The one column of the label; None: several labels at once."""
        return clean(self.label) if isinstance(self.label, str) and self.label_separator is None else None

    @property
    def label_columns(self) -> tuple[str, ...]:
        return (clean(self.label),) if isinstance(self.label, str) else names(self.label, "data.label", at_least=2)

    @property
    def split_columns(self) -> tuple[str, ...]:
        """Columns that are no features, and by which clients, test or validation data are split."""
        return tuple(self._split_keys)

    @property
    def _split_keys(self) -> dict[str, str]:
        """By column, the first key that names it."""
        named = {"split_time": self.split_time, "split_by": self.split_by, "group": self.group}
        return {clean(name): f"data.{key}" for key, name in named.items() if name is not None}

    @property
    def ignored_columns(self) -> tuple[str, ...]:
        return tuple(map(clean, self.ignore))

    @property
    def nothing(self) -> str | None:
        return None if self.no_label is None else clean(self.no_label)

    @cached_property
    def given(self) -> Given:
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
            self.blanks,
            self.max_categories,
            self.ignore_case,
        )


def named_classes(given: Sequence[str | int] | None) -> tuple[str, ...] | None:
    return None if given is None else names(given, "data.classes", at_least=2)
