import re
from pathlib import Path
from typing import Any

import pytest

from fedapp.common.errors import ConfigError, DataError
from fedapp.data.sources.csv_table import CsvTable

COLUMNS: dict[str, Any] = {"numeric": ["age"], "categorical": {"sex": ["f", "m"]}, "classes": ["no", "yes"]}


def message(path: Path, **fields: Any) -> str:
    """The error of a device whose data lie at `path`."""
    with pytest.raises(DataError) as raised:
        CsvTable(**{"label": "y", **COLUMNS, **fields}).local(path)
    assert str(raised.value).startswith(f"{path}: ")
    return str(raised.value)[len(f"{path}: ") :]


def local_message(folder: Path, content: str | bytes, **fields: Any) -> str:
    path = folder / "own.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return message(path, **fields)


def simulated_message(folder: Path, text: str, **fields: Any) -> str:
    """The error of a simulation that infers its columns from `text`."""
    path = folder / "all.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as raised:
        CsvTable(**{"label": "y", "path": str(path), **fields}).pooled()
    assert str(raised.value).startswith(f"{path}: ")
    return str(raised.value)[len(f"{path}: ") :]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the file is empty"),
        (b"\n\n", "the first row is empty"),
        ("age,sex,y\n", "the table is empty: row 1 names the columns, and no row follows"),
        ("age,sex,y\n,,\n\n", "the table is empty"),
        (
            "age,sex,y\n1,m,no\n2,m,\u0434\u0430\n".encode("cp1251"),
            "row 3: byte 0xe4 is not UTF-8. Save it as CSV in UTF-8, or set data.encoding to what it was saved in: ",
        ),
        ("age,sex,y\n1,m,no,7\n", "row 2 has 4 cells, row 1 names 3 columns"),
        ("age,sex,y\n1,m,no\n2,m\n", "row 3 has 2 cells, row 1 names 3 columns"),
        ('age,sex,y\n1,"m,no\n', "row 2: not a table whose cells are separated by ','"),
        ("age,sex,y,age\n1,m,no,1\n", "row 1 names the column 'age' more than once"),
        ("age%sex%y\n1%m%no\n", "no column 'y'; it has 'age%sex%y'"),
        ("sex,y\nm,no\n", "no column 'age'; it has 'sex', 'y'"),
        ("age,sex\n1,m\n", "no column 'y'; it has 'age', 'sex'"),
        ("age,y\n1,no\n", "no column 'sex'; it has 'age', 'y'"),
        ("age,sex,y\n1,m,no\nold,m,no\n", "column 'age', row 3: 'old' is not a number"),
        ("age,sex,y\n1,m,no\n\n\n3 4,m,no\n", "column 'age', row 5: '3 4' is not a number"),
        ("age,sex,y\n-inf,m,no\n", "column 'age', row 2: '-inf' is infinite or too large for a float32"),
        ("age,sex,y\n1e39,m,no\n", "column 'age', row 2: '1e39' is infinite or too large for a float32"),
        ("age,sex,y\n1,m,no\n,m,no\n", "column 'age', row 3: '' is a missing value. Fill it in, or set data"),
        ("age,sex,y\nNaN,m,no\n", "column 'age', row 2: 'NaN' is a missing value"),
        ("age,sex,y\n1,NA,no\n", "column 'sex', row 2: 'NA' is a missing value"),
        ("age,sex,y\n1,x,no\n", "column 'sex', row 2: 'x' is no known category; known: 'f', 'm'"),
        ("age,sex,y\n1,M,no\n", "column 'sex', row 2: 'M' is no known category"),
        ("age,sex,y\n1,m,maybe\n", "column 'y', row 2: 'maybe' is no known label; known: 'no', 'yes'"),
        ("age,sex,y\n1,m,\n", "column 'y', row 2: '' is a missing value. A label cannot be guessed"),
    ],
)
def test_a_device_is_told_what_is_wrong(tmp_path: Path, content: str | bytes, expected: str) -> None:
    assert local_message(tmp_path, content).startswith(expected)


def test_missing_files_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert message(tmp_path / "none.csv") == "no such file"
    assert message(tmp_path).startswith("no tables, which are named *.csv")
    monkeypatch.chdir(tmp_path)
    assert message(Path("none.csv")) == f"no such file in {tmp_path}. Give the path from the root"


@pytest.mark.parametrize("missing", ["mean", "error"])
def test_a_missing_label_or_group_is_an_error_unless_dropped(tmp_path: Path, missing: str) -> None:
    text = "age,sex,site,y\n1,m,,no\n2,f,b,yes\n"
    assert local_message(tmp_path, "age,sex,y\n1,m,\n", missing=missing).startswith("column 'y', row 2: ''")
    told = simulated_message(tmp_path, text, missing=missing, group="site")
    assert told == "column 'site', row 2: '' is a missing value. Fill it in, or set data.missing=drop"


def test_other_rules_for_missing_values_forgive_nothing_else(tmp_path: Path) -> None:
    assert "'x' is no known category" in local_message(tmp_path, "age,sex,y\n1,x,no\n", missing="mean")
    assert "'old' is not a number" in local_message(tmp_path, "age,sex,y\nold,m,no\n", missing="drop")
    assert "leaves no row: each of the 2" in local_message(tmp_path, "age,sex,y\n,m,no\n1,m,\n", missing="drop")


def test_regression_labels_are_finite_numbers(tmp_path: Path) -> None:
    for value, why in [("high", "is not a number"), ("inf", "is infinite"), ("", "is a missing value")]:
        told = local_message(tmp_path, f"age,sex,y\n1,m,{value}\n", regression=True, classes=None)
        assert told.startswith(f"column 'y', row 2: {value!r} {why}")


@pytest.mark.parametrize(
    ("text", "fields", "expected"),
    [
        ("a,y\n1,0\n2,1\n", {"ignore": ["b"]}, "no column 'b'; it has 'a', 'y'"),
        ("a,y\n1,0\n2,1\n", {"group": "site"}, "no column 'site'; it has 'a', 'y'"),
        ("a,y\n1,0\n2,1\n", {"ignore": ["b"], "numeric": ["a"], "categorical": {}, "classes": [0, 1]}, "no column 'b'"),
        ("a,y\n1,0\n2,1\n", {"label": "z"}, "no column 'z'"),
        ("a,y\n1,0\n2,1\n", {"numeric": ["b"]}, "no column 'b'"),
        ("a,y\n1,0\n2,0\n", {}, "column 'y' holds '0'; a label needs two classes"),
        ("y\n1\n2\n", {}, "no column is left as a feature; the table has 'y'"),
        (",a,y\n0,1,0\n1,2,1\n", {}, "a column has no name in row 1"),
        ("a,b,y\n1,,0\n2,NA,1\n", {}, "column 'b' holds no value. Name it in data.ignore"),
        ("a,b,y\n1,u,0\n2,v,1\n", {"categorical": {}}, "column 'b', row 2: 'u' is not a number, and data.categorical"),
    ],
)
def test_a_simulation_is_told_what_is_wrong(tmp_path: Path, text: str, fields: dict[str, Any], expected: str) -> None:
    assert simulated_message(tmp_path, text, **fields).startswith(expected)


def test_too_many_distinct_values_are_not_taken_for_categories(tmp_path: Path) -> None:
    rows = "".join(f"{i},{i % 2}\n" for i in range(150))
    told = simulated_message(tmp_path, f"name,y\n{rows.replace(chr(10), chr(10) + 'x')}4O,1\n")
    assert told.startswith("column 'name' has 151 distinct values")
    assert "'data.ignore=[name]'" in told
    told = simulated_message(tmp_path, "x,y\n" + "".join(f"0,{i}.5\n" for i in range(150)))
    assert told.startswith("column 'y' has 150 distinct values")
    assert told.endswith("data.regression=true if the label is a number")


def test_long_lists_are_cut(tmp_path: Path) -> None:
    categories = [f"c{i}" for i in range(30)]
    told = local_message(tmp_path, "sex,age,y\nx,1,no\n", categorical={"sex": categories})
    assert "'c19' and 10 more" in told
    assert "'c20'" not in told


@pytest.mark.parametrize(
    ("fields", "keys"),
    [
        ({}, "data.numeric, data.categorical, data.classes"),
        ({"numeric": ["a"], "classes": ["0", "1"]}, "data.categorical"),
        ({"numeric": ["a"], "categorical": {}}, "data.classes"),
        ({"regression": True, "categorical": {}}, "data.numeric"),
    ],
)
def test_nothing_is_inferred_without_the_whole_table(fields: dict[str, Any], keys: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{re.escape(keys)}: must be set .* since nobody sees all the data$"):
        CsvTable("y", **fields).schema()
    with pytest.raises(ConfigError, match=r"^data\.path=null: a simulation needs the whole table"):
        CsvTable("y", **fields).pooled()
    with pytest.raises(DataError, match=rf"^/none\.csv: no such file\. It is needed to infer {keys}, unless"):
        CsvTable("y", "/none.csv", **fields).schema()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"label": "age"}, "data.numeric: column 'age' is named in data.label too"),
        ({"label": "sex"}, "data.categorical: column 'sex' is named in data.label too"),
        ({"group": "y"}, "data.group: column 'y' is named in data.label too"),
        ({"group": "age"}, "data.numeric: column 'age' is named in data.group too"),
        ({"ignore": ["age"]}, "data.ignore: column 'age' is named in data.numeric too"),
        ({"numeric": ["age", "sex"]}, "data.categorical: column 'sex' is named in data.numeric too"),
        ({"numeric": ["age", "age"]}, "data.numeric: 'age' is listed more than once"),
        ({"categorical": {"sex": ["m", "m"]}}, "data.categorical.sex: 'm' is listed more than once"),
        ({"categorical": {"sex": []}}, "data.categorical.sex=[]: needs 1 or more"),
        ({"classes": ["no"]}, "data.classes=['no']: needs 2 or more"),
        ({"classes": [False, True]}, "data.classes: False is not text. Quote it"),
        ({"classes": [1.0, 2.0]}, "data.classes: 1.0 is not text"),
        ({"classes": "no"}, "data.classes='no': must be a list"),
        ({"regression": True}, "data.classes: regression has no classes"),
        ({"numeric": [], "categorical": {}}, "data.numeric=[], data.categorical={}: no feature is left"),
        ({"missing": "zero"}, "data.missing='zero': must be one of 'error', 'drop', 'mean'"),
        ({"scaling": "minmax"}, "data.scaling='minmax': must be one of 'federated', 'given', 'none'"),
        ({"delimiter": "||"}, "data.delimiter='||': must be one character"),
        ({"test_fraction": 1.0}, "data.test_fraction=1.0: must be at least 0"),
    ],
)
def test_settings_that_contradict_each_other(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}"):
        CsvTable(**{"label": "y", **COLUMNS, **fields})


def test_a_mean_needs_scaling() -> None:
    with pytest.raises(ConfigError, match=r"data.missing=mean, data.scaling=none.*data.missing=drop"):
        CsvTable("y", missing="mean", scaling="none", **COLUMNS)
