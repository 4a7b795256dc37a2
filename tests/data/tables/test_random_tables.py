"""Random tables with known content, written in random ways: that very content is read, or a message names the place."""

import csv
import gzip
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedapp.common.errors import DataError
from fedapp.data.sources.csv_table import CsvTable

WORDS = ["red", "blue", "Köln", "new york", 'the "best"', "a,b", "x;y", "是", "über", "Да"]
NAMES = ["a", "Größe", "chest pain (type)", "x,y", "b;c", 'with "quotes"', "诊断", " padded ", "2020", "tab\tbed"]


@dataclass(frozen=True)
class Written:
    """A table's content, and how it is written: numbers by column, categories, labels; None is a missing value."""

    names: list[str]
    numbers: list[list[float | None]]
    words: list[str | None]
    labels: list[str]
    content: bytes


@st.composite
def tables(draw: st.DrawFn) -> Written:
    count, width = draw(st.integers(4, 12)), draw(st.integers(1, 3))
    names = draw(st.permutations(NAMES))[: width + 1]
    number = st.decimals(-99999, 99999, places=draw(st.integers(0, 4)), allow_nan=False, allow_infinity=False)
    numbers = [[draw(st.one_of(st.none(), number.map(float))) for _ in range(count)] for _ in range(width)]
    words = [draw(st.one_of(st.none(), st.sampled_from(WORDS))) for _ in range(count)]
    labels = ["no", "yes", *(draw(st.sampled_from(["no", "yes"])) for _ in range(count - 2))]
    decimal, thousands = draw(st.sampled_from([(".", ""), (".", ","), (",", ""), (",", "."), (",", " "), (".", "'")]))
    delimiter = draw(st.sampled_from([",", ";", "\t", "|"]))
    blank = draw(st.sampled_from(["", "NA", "NULL", "  "]))
    pad = draw(st.sampled_from(["", " ", "\u00a0"]))

    def cell(value: float | str | None) -> str:
        if value is None:
            return blank
        if isinstance(value, float):
            shown = f"{value:,.4f}" if thousands else f"{value:.4f}"
            return pad + shown.replace(",", "T").replace(".", decimal).replace("T", thousands) + pad
        return f"{value}{pad}"

    out = io.StringIO(newline="")
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerow([*names, "y"])
    for at in range(count):
        writer.writerow([*(cell(column[at]) for column in numbers), cell(words[at]), cell(labels[at])])
        if draw(st.booleans()):
            out.write(end)
    text = out.getvalue()
    if draw(st.booleans()) and delimiter != "\t":
        text = f"sep={delimiter}{end}{text}"
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252", "gb18030", "cp1251"]))
    try:
        content = text.encode(encoding)
    except UnicodeEncodeError:
        content = text.encode("utf-8")
    return Written(names, numbers, words, labels, gzip.compress(content) if draw(st.booleans()) else content)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(tables())
def test_a_table_is_read_as_it_was_meant_or_refused(written: Written) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        path.write_bytes(written.content)
        source = CsvTable("y", str(path), missing="mean", test_fraction=0.0)
        try:
            schema, train = source.schema(), source.pooled().train
            device = CsvTable("y", missing="mean", **source.settled()).local(path)
        except DataError as error:
            refusal = str(error)
        else:
            refusal = None
    if refusal is not None:
        assert refusal.startswith(str(path))  # and so names the file; the rest is for test_dialects.py
        return
    assert device.inputs.equal(train.inputs) or device.inputs.nan_to_num(7e9).equal(train.inputs.nan_to_num(7e9))
    assert [schema.classes[target] for target in train.targets.tolist()] == written.labels
    columns = dict(zip(schema.features, train.inputs.T.tolist(), strict=True))
    names = [name.strip() for name in written.names]
    for name, numbers in zip(names, written.numbers, strict=False):
        found = columns[name]
        assert [None if value != value else round(value, 1) for value in found] == [
            None if value is None else round(as_float32(value), 1) for value in numbers
        ]
    for at, word in enumerate(written.words):
        chosen = [
            feature for feature in schema.features if feature.startswith(f"{names[-1]}=") and columns[feature][at] == 1
        ]
        assert chosen == ([] if word is None else [f"{names[-1]}={word}"])


def as_float32(value: float) -> float:
    import torch

    return torch.tensor(value, dtype=torch.float32).item()


def test_most_random_tables_are_read(tmp_path: Path) -> None:
    """The property would hold for a reader that refuses everything."""
    read = 0

    @settings(max_examples=60, deadline=None, database=None, derandomize=True)
    @given(tables())
    def count(written: Written) -> None:
        nonlocal read
        path = tmp_path / "t.csv"
        path.write_bytes(written.content)
        try:
            CsvTable("y", str(path), missing="mean", test_fraction=0.0).schema()
            read += 1
        except DataError:
            pass

    count()
    assert read > 30
