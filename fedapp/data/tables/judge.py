"""What was found in a table, for people to read before it is trained on, and what in it looks wrong."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from fedapp.common.override_text import pasted
from fedapp.data.checks import known
from fedapp.data.findings import Findings
from fedapp.data.tables.columns import Columns
from fedapp.data.tables.several_labels import SeveralLabels
from fedapp.data.tables.table import DataTable
from fedapp.data.tables.text import alike, look

__all__ = ["table_findings"]

# What people and programs write where they know no value.
NO_VALUE = {
    "?",
    "-",
    "--",
    "none",
    "nil",
    "null",
    "na",
    "n a",
    "nan",
    "missing",
    "unknown",
    "not available",
    "#n/a",
    "??",
}
IDENTITY = re.compile(
    r"(^|[\W_])(ids?|nr|uuid|guid|mrn|ssn|key|index|unnamed: ?\d+)$|[a-z](?-i:I[Dd])$|"
    r"(^|[\W_])(patient|subject|person|customer|user|participant|member|client|record|case)"
    r"([\W_]?(id|nr|no|num|number|code|key))?$",
    re.IGNORECASE,
)
RARE = 0.05  # of all rows
FEW = 20  # rows; a table of fewer proves nothing
LISTED = 12  # names in a line


def table_findings(table: DataTable, columns: Columns, groups: Sequence[str]) -> Findings:
    """`groups` are columns that are no features: by them clients or test data are split."""
    return Findings(tuple(_facts(table, columns, groups)), tuple(_warnings(table, columns, groups)))


def _facts(table: DataTable, columns: Columns, groups: Sequence[str]) -> list[str]:
    many = f" in {len(table.sheets)} files" if len(table.sheets) > 1 else ""
    facts = [f"{table.name}: {len(table)} rows{many}, {len(table.names) - len(table.own_columns)} columns"]
    said = sorted({said for sheet in table.sheets for said in sheet.said})
    said += [f"{marks} in {', '.join(names[:LISTED])}{_more(len(names))}" for marks, names in _marked(table).items()]
    facts += [f"written     {'; '.join(said)}"] if said else []
    if columns.several is None:
        facts.append(f"label       {columns.label}: {_label(table, columns)}")
    else:
        facts.append(_labels(table, columns.several))
    if columns.numeric:
        facts.append(f"numbers     {_listed(columns.numeric)}")
    if columns.dates:
        facts.append(f"dates       {_listed(columns.dates)}, as days since 1970-01-01")
    if columns.categorical:
        named = [f"{name} ({len(values)})" for name, values in columns.categorical.items()]
        facts.append(f"categories  {_listed(named)}")
    rest = _left_out(table, columns, groups)
    if table.own_columns:
        count = len(table.sheets)
        facts.append(
            f"sites       {_listed([sheet.site for sheet in table.sheets])}; to make each a client, set data.group=site"
            f" partition=natural federation.num_clients={count}"
        )
    if groups:
        facts.append(f"groups      {_listed(groups)}")
    if rest:
        facts.append(f"left out    {_listed(rest)}")
    return facts


def _marked(table: DataTable) -> Mapping[str, list[str]]:
    """By kind of marks, the columns whose numbers have other than a decimal point."""
    found: dict[str, list[str]] = {}
    for sheet in table.sheets:
        for name, marks in sheet.marks.items():
            if marks.decimal != "." or marks.thousands:
                names = found.setdefault(str(marks), [])
                names += [] if name in names else [name]
    return found


def _label(table: DataTable, columns: Columns) -> str:
    if not columns.classes:
        values = table.numbers(str(columns.label))
        return f"a number, {np.nanmin(values):g} to {np.nanmax(values):g}" if np.isfinite(values).any() else "a number"
    counts = Counter(table.column(str(columns.label)).values())
    return ", ".join(f"{name} ({counts[name]})" for name in columns.classes[:LISTED]) + _more(len(columns.classes))


def _labels(table: DataTable, several: SeveralLabels) -> str:
    counts = several.counts(table)
    named = ", ".join(f"{name} ({count})" for name, count in list(counts.items())[:LISTED])
    where = f"between {several.separator!r} in {several.column}" if several.separator else "a column each"
    return f"labels      {len(counts)}, any number at once, {where}: {named}{_more(len(counts))}"


def _rare_labels(counts: Mapping[str, int], rows: int) -> list[str]:
    """Labels that a model can leave out, and still be right nearly always; and those that tell nothing."""
    warnings = []
    if same := [name for name, count in counts.items() if count in (0, rows)]:
        warnings.append(f"labels {known(same)}: every row has it, or none, so that nothing can be learnt of it")
    rare = [f"{name!r} ({100 * count / rows:.2g} %)" for name, count in counts.items() if 0 < count < RARE * rows]
    if rare:
        warnings.append(
            f"labels {', '.join(rare[:LISTED])}{_more(len(rare))}: rare, so that other labels decide most metrics. Look"
            " at task.metrics=[label_average_precision], and give them weight by task/loss=binary_cross_entropy"
            " task.loss.class_weights=balanced"
        )
    return warnings


def _listed(names: Sequence[str]) -> str:
    return f"{len(names)}: {', '.join(names[:LISTED])}{_more(len(names))}"


def _more(count: int) -> str:
    return f" and {count - LISTED} more" if count > LISTED else ""


def _warnings(table: DataTable, columns: Columns, groups: Sequence[str]) -> list[str]:
    warnings = []
    named = {str(columns.label): columns.classes}
    if columns.several is not None:
        named = {columns.several.column: columns.several.names} if columns.lists else {}
    for name, values in [*named.items(), *columns.categorical.items()]:
        what = "labels" if columns.lists and name in named else "classes" if name in named else "categories"
        for group in [] if columns.ignore_case else alike(values):
            warnings.append(
                f"column {name!r}: {known(group)} look alike, and are {what} of their own. Correct the cells, or set"
                " data.ignore_case=true"
            )
        if odd := [value for value in values if look(value) in NO_VALUE]:
            blanks = pasted("data.more_missing_values", odd)
            warnings.append(
                f"column {name!r}: {known(odd)} counts as one of the {what}. If it stands for a missing value, set"
                f" {blanks} and data.missing=drop"
            )
    return [*warnings, *_rare(table, columns), *_identities(table, columns, groups)]


def _rare(table: DataTable, columns: Columns) -> list[str]:
    """Classes that a model can leave out, and still be right nearly always."""
    if columns.several is not None:
        return _rare_labels(columns.several.counts(table), len(table))
    counts = Counter(table.column(str(columns.label)).values()) if columns.classes else Counter()
    total = sum(counts[name] for name in columns.classes)
    found = [name for name in columns.classes if 0 < counts[name] < RARE * total]
    if not found or len(columns.classes) * RARE > 1:  # of many classes each is rare
        return []
    names = ", ".join(f"{name!r} ({100 * counts[name] / total:.2g} %)" for name in found[:LISTED])
    return [
        f"column {columns.label!r}: {names} is rare: accuracy hardly tells whether it is found. Look at"
        " task.metrics=[recall,precision,average_precision], and give it weight by task/loss=cross_entropy"
        " task.loss.class_weights=balanced"
    ]


def _identities(table: DataTable, columns: Columns, groups: Sequence[str]) -> list[str]:
    features, numeric = {*columns.numeric, *columns.categorical}, set(columns.numeric)
    single, repeated, codes = [], [], []
    for name in table.names:
        if name in columns.labels or name in groups or name in table.own_columns:
            continue
        texts = table.column(name).texts
        named, count = IDENTITY.search(name) is not None, len(texts)
        if count == len(table) and len(table) >= FEW and name in features and (named or _counts_up(table, name)):
            single.append(name)
        elif named and 2 < count < len(table) and count > len(table) / 50:
            repeated.append((name, count))
        elif name in numeric and re.search(r"^0\d+$", "\n".join(texts), re.MULTILINE):
            codes.append(name)
    warnings = []
    if single:
        left = pasted("data.ignore", [*_left_out(table, columns, groups), *single])
        warnings.append(
            f"{known(single)}: a number of its own for each row looks like an identifier, from which nothing general"
            f" can be learned. To leave it out, set {left}"
        )
    for name in codes:
        warnings.append(
            f"column {name!r}: numbers with leading zeros look like codes. To take them for categories, set"
            f" {pasted('data.as_category', [name])}"
        )
    for name, count in [] if groups else repeated:
        warnings.append(
            f"column {name!r} has {count} values in {len(table)} rows: rows of one of them may be in training and in"
            f" test, and make the test look too good. To keep them together, set {pasted('data.split_by', name)}"
        )
    return warnings


def _left_out(table: DataTable, columns: Columns, groups: Sequence[str]) -> list[str]:
    used = {*columns.used, *groups, *table.own_columns}
    return [name for name in table.names if name not in used]


def _counts_up(table: DataTable, name: str) -> bool:
    """Whether the column numbers the rows."""
    values = table.numbers(name) if name in table.sheets[0].columns else np.array([])
    return bool(len(values) and np.isfinite(values).all() and (np.diff(values) == 1).all())
