"""However a file is written, its content is read, or a message names the place and the override."""

import gzip
from pathlib import Path
from typing import Any

import pytest

from fedapp.common.errors import DataError
from fedapp.data.sources.csv_table import CsvTable

ROWS = [("12.5", "Köln", "ja"), ("3.25", "Ulm", "nein"), ("1240.75", "Köln", "nein"), ("0.5", "Ulm", "ja")]
INPUTS = [[12.5, 1.0, 0.0], [3.25, 0.0, 1.0], [1240.75, 1.0, 0.0], [0.5, 0.0, 1.0]]


def text(delimiter: str, spelt: Any = str, end: str = "\n", quote: str = "") -> str:
    lines = [("wert", "ort", "y"), *((spelt(value), city, label) for value, city, label in ROWS)]
    return end.join(delimiter.join(f"{quote}{cell}{quote}" for cell in line) for line in lines) + end


def german(value: str) -> str:
    return f"{float(value):,.2f}".translate(str.maketrans(",.", ".,"))


def comma(value: str) -> str:
    return value.replace(".", ",")


FORMS: dict[str, tuple[bytes, str]] = {
    "comma": (text(",").encode(), ""),
    "semicolon": (text(";").encode(), "cells separated by ';'"),
    "tab": (text("\t").encode(), "cells separated by tab"),
    "pipe": (text("|").encode(), "cells separated by '|'"),
    "decimal comma": (text(";", comma).encode(), "decimal mark ',' in wert"),
    "thousands": (text(";", german).encode(), "decimal mark ',', thousands mark '.' in wert"),
    "english thousands": (text(";", lambda v: f"{float(v):,}").encode(), "thousands mark ',' in wert"),
    "spaced thousands": (text(";", lambda v: f"{float(v):,}".replace(",", "\u202f")).encode(), "thousands mark ' '"),
    "swiss thousands": (text(";", lambda v: f"{float(v):,}".replace(",", "’")).encode(), "thousands mark"),  # noqa: RUF001
    "quoted decimal comma": (text(",", comma, quote='"').encode(), "decimal mark ',' in wert"),
    "sep line": (b"sep=;\r\n" + text(";", end="\r\n").encode(), "cells separated by ';'"),
    "odd sep line": (b'"sep=!"\n' + text("!").encode(), "cells separated by '!'"),
    "byte order mark": (text(",").encode("utf-8-sig"), "utf-8 (marked)"),
    "UTF-16": (text("\t").encode("utf-16"), "utf-16-le (marked)"),
    "UTF-16 unmarked": (text("\t").encode("utf-16-le"), "encoding utf-16-le"),
    "cp1252": (text(";").encode("cp1252"), "encoding cp1252"),
    "old Mac lines": (text(",", end="\r").encode(), ""),
    "gzip": (gzip.compress(text(",").encode()), ""),
    "spaces": (text(" ;\u00a0").encode(), "cells separated by ';'"),
    "trailing separator": (text(",").replace("\n", ",\n").encode(), ""),
    "composed letters": (text(",").replace("ö", "o\u0308").encode(), ""),
    "blank rows": (text(",", end="\n\n,,\n").encode(), ""),
}


def read(folder: Path, content: bytes, **fields: Any) -> CsvTable:
    path = folder / "t.csv"
    path.write_bytes(content)
    return CsvTable(**{"label": "y", "path": str(path), "test_fraction": 0.0, **fields})


@pytest.mark.parametrize("form", FORMS)
def test_the_same_content_is_read_however_it_is_written_and_that_is_said(tmp_path: Path, form: str) -> None:
    content, said = FORMS[form]
    table = read(tmp_path, content)
    assert table.schema().features == ("wert", "ort=Köln", "ort=Ulm")
    assert table.schema().classes == ("ja", "nein")
    train = table.pooled().train
    assert train.inputs.tolist() == INPUTS
    assert train.targets.tolist() == [0, 1, 1, 0]
    written = [fact for fact in table.findings().facts if fact.startswith("written")]
    assert (said in written[0]) if said else written == []
    columns = table.settled() | {"path": None}
    device = CsvTable(**{"label": "y", **columns}).local(tmp_path / "t.csv")  # finds the same, with no other file
    assert device.inputs.equal(train.inputs)


UNCLEAR = {
    "1,234 may be two numbers": (b"a;y\n1,234;0\n5,678;1\n", ["column 'a', row 2: '1,234'", 'data.decimal=","']),
    "1.234 where commas do not separate": (b"a;y\n1.234;0\n987;1\n", ["column 'a', row 2: '1.234'", "1234"]),
    "quoted 1,234": (b'a,y\n"1,234",0\n"12",1\n', ["row 2: '1,234' may be", "data.decimal"]),
    "two delimiters": (b"a,b;y\n1,2;0\n3,4;1\n5,6;1\n", ["separated by ',' or ';'", 'data.delimiter=","']),
    "Cyrillic or Western": (
        "a,y\n1,да\n2,нет\n".encode("cp1251"),
        ["row 2: byte 0xe4", "data.encoding=cp1251 reads 'да'"],
    ),
    "ragged": (b"a,y\n1,0\n2\n3,1\n", ["row 3 has 1 cells, row 1 names 2 columns"]),
    "open quote": (b'a,y\n1,0\n"2,1\n', ["row 3", "unexpected end of data", "quotation marks"]),
    "zip": (b"PK\x03\x04rest", ["Excel workbook", "CSV in UTF-8"]),
    "cut off gzip": (gzip.compress(text(",").encode() * 50)[:-20], ["t.csv: cannot be read", "end-of-stream"]),
    "day or month": (b"d,y\n03/04/2021,0\n05/04/2021,1\n", ["column 'd', row 2: '03/04/2021'", "data.day_first=true"]),
}


@pytest.mark.parametrize("form", UNCLEAR)
def test_what_could_be_read_in_two_ways_is_refused(tmp_path: Path, form: str) -> None:
    content, parts = UNCLEAR[form]
    label = "b" if form == "two delimiters" else "y"
    fields = {"label": "y"} if label == "y" else {"label": "z"}
    with pytest.raises(DataError) as raised:
        read(tmp_path, content, **fields).pooled()
    assert [part for part in parts if part not in str(raised.value)] == [], str(raised.value)


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({"decimal": ","}, 1.234),
        ({"decimal": "."}, 1234.0),
        ({"thousands": ","}, 1234.0),
    ],
)
def test_the_config_says_what_the_file_does_not(tmp_path: Path, fields: dict[str, Any], value: float) -> None:
    table = read(tmp_path, b"a;y\n1,234;0\n5,678;1\n", **fields)
    assert table.pooled().train.inputs[0, 0].item() == pytest.approx(value)


def test_another_column_shows_what_one_column_does_not(tmp_path: Path) -> None:
    table = read(tmp_path, b"a;b;y\n1,234;0,5;0\n5,678;2,25;1\n")
    assert table.pooled().train.inputs.tolist() == [pytest.approx([1.234, 0.5]), pytest.approx([5.678, 2.25])]


@pytest.mark.parametrize("typed", ["\t", "\\t", "tab"])
def test_a_tab_may_be_typed_as_people_type_it(tmp_path: Path, typed: str) -> None:
    assert read(tmp_path, text("\t").encode(), delimiter=typed).pooled().train.inputs.tolist() == INPUTS


def test_an_encoding_is_taken_as_given(tmp_path: Path) -> None:
    table = read(tmp_path, "a,y\n1,да\n2,нет\n".encode("cp1251"), encoding="cp1251")
    assert table.schema().classes == ("да", "нет")


@pytest.mark.parametrize(
    ("cells", "days"),
    [
        (["1970-01-02", "1970-01-03T12:00"], [1.0, 2.5]),
        (["02.01.1970", "03.02.1970"], [1.0, 33.0]),
        (["01/13/1970", "02/01/1970"], [12.0, 31.0]),
        (["13/01/1970", "01/02/1970"], [12.0, 31.0]),
        (["1970-01-02T00:00:00+02:00", "1970-01-02 00:00:00Z"], [22 / 24, 1.0]),
    ],
)
def test_dates_are_days(tmp_path: Path, cells: list[str], days: list[float]) -> None:
    table = read(tmp_path, f"d,y\n{cells[0]},0\n{cells[1]},1\n".encode())
    assert table.pooled().train.inputs.flatten().tolist() == pytest.approx(days)
    assert table.settled()["dates"] == ["d"]
    assert "dates       1: d, as days since 1970-01-01" in table.findings().facts


def test_day_and_month_are_told_apart_by_the_config(tmp_path: Path) -> None:
    content = b"d,y\n03/04/1970,0\n05/06/1970,1\n"
    assert read(tmp_path, content, day_first=True).pooled().train.inputs[0, 0].item() == 92.0
    assert read(tmp_path, content, day_first=False).pooled().train.inputs[0, 0].item() == 62.0
