"""Tables whose rows have several labels at once: what is read, what is said of it, and what is refused."""

from pathlib import Path

import pytest
import torch
from visits import LABELS, write_columns, write_list

from fedapp.common.errors import ConfigError, DataError
from fedapp.data.source import Examples
from fedapp.data.sources.csv_table import CsvTable


def examples(path: str, **settings: object) -> Examples:
    return CsvTable(path=path, test_fraction=0, **{"label": LABELS, **settings}).pooled().train  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("yes", "no"), [("1", "0"), ("1.0", "0.0"), ("yes", "no"), ("TRUE", "False"), (" Y ", "n"), ("true", "0")]
)
def test_columns_of_yes_and_no_are_read_as_they_are_written(tmp_path: Path, yes: str, no: str) -> None:
    plain = examples(write_columns(tmp_path / "plain.csv"))
    assert plain.targets.shape == (300, 3)
    assert plain.targets.dtype == torch.float32
    assert examples(write_columns(tmp_path / "t.csv", yes=yes, no=no)).sha256() == plain.sha256()


def test_a_list_says_the_same_as_columns_whatever_the_order(tmp_path: Path) -> None:
    plain = examples(write_columns(tmp_path / "plain.csv"))
    turned = examples(write_columns(tmp_path / "turned.csv", order=(2, 0, 1)))
    listed = examples(
        write_list(tmp_path / "l.csv"),
        label="findings", label_separator="|", no_label="No Finding", classes=list(LABELS),
    )  # fmt: skip
    empty = examples(
        write_list(tmp_path / "e.csv", none="", separator=" ; "),
        label="findings", label_separator=";", no_label="", classes=list(LABELS),
    )  # fmt: skip
    assert turned.sha256() == listed.sha256() == empty.sha256() == plain.sha256()


def test_labels_of_a_list_are_found_and_sorted(tmp_path: Path) -> None:
    source = CsvTable("findings", write_list(tmp_path / "l.csv"), "|", "No Finding")
    assert source.schema().labels == ("cough", "fever", "rash")
    assert source.schema().kind == "multilabel"
    assert source.settled()["classes"] == ["cough", "fever", "rash"]
    assert source.schema().features == ("a", "b")


def test_what_was_found_is_said_by_label_and_rare_ones_are_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = "".join(f"{i},{int(i % 2)},{int(i % 50 == 0)},0\n" for i in range(100))
    path.write_text("a,fever,rash,plague\n" + rows)
    found = CsvTable(["fever", "rash", "plague"], str(path)).findings()
    said = "labels      3, any number at once, a column each: fever (50), rash (2), plague (0)"
    assert said in found.facts
    assert any("'rash' (2 %)" in line and "class_weights=balanced" in line for line in found.warnings)
    assert any("labels 'plague': every row has it, or none" in line for line in found.warnings)
    listed = write_list(tmp_path / "l.csv", none="?")
    found = CsvTable("findings", listed, "|").findings()
    assert any("'?'" in line and "one of the labels" in line for line in found.warnings)


def test_labels_that_look_alike_are_warned_of_and_joined_on_request(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,tags\n" + "1,Red;blue\n2,red\n3,blue\n" * 5)
    assert any("'Red', 'red' look alike" in line for line in CsvTable("tags", str(path), ";").findings().warnings)
    assert CsvTable("tags", str(path), ";", ignore_case=True).schema().labels == ("Red", "blue")


BAD_CELLS = [
    ("1,2,0\n", {}, r"column 'y', row 2: '2' is neither 0 nor 1"),
    ("1,0,maybe\n", {}, r"column 'z', row 2: 'maybe' is neither 0 nor 1"),
    ("1,0,\n", {}, r"column 'z', row 2: '' is a missing value. A label cannot be guessed.*data.missing=drop"),
    ("1,0,?\n", {"more_missing_values": ["?"]}, r"column 'z', row 2: '\?' is a missing value"),
]


@pytest.mark.parametrize(("row", "settings", "message"), BAD_CELLS)
def test_a_cell_that_says_neither_is_refused_with_its_row(
    tmp_path: Path, row: str, settings: dict[str, object], message: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"a,y,z\n{row}1,0,1\n2,1,0\n3,1,1\n")
    with pytest.raises(DataError, match=message):
        examples(str(path), label=["y", "z"], **settings)
    if "missing value" in message:
        assert len(examples(str(path), label=["y", "z"], missing="drop", **settings)) == 3


def test_a_list_with_something_unknown_is_refused_with_its_row(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,tags\n1,red;blue\n2,green\n3,\n")
    with pytest.raises(DataError, match=r"column 'tags', row 3: 'green' lists, between ';', what is no known label"):
        examples(str(path), label="tags", label_separator=";", classes=["red", "blue"], no_label="")
    with pytest.raises(DataError, match=r"row 4: '' is a missing value.*data.no_label"):
        examples(str(path), label="tags", label_separator=";", classes=["red", "blue", "green"])
    with pytest.raises(DataError, match=r"column 'tags' lists 'red;blue' between ','|data.label_separator"):
        CsvTable("tags", str(path), "|", test_fraction=0, max_categories=1).schema()


REFUSED = [
    ({"label": ["y"]}, r"data\.label=\['y'\]: needs 2 or more"),
    ({"label": ["y", "y"]}, r"data\.label: 'y' is listed more than once"),
    ({"label": ["y", "z"], "classes": ["0", "1"]}, r"data\.classes: the labels are the columns"),
    ({"label": ["y", "z"], "regression": True}, r"data\.regression=true"),
    ({"label": ["y", "z"], "label_separator": ";"}, r"data\.label_separator=';'.*data\.label names 2"),
    ({"label": "y", "label_separator": "and"}, r"data\.label_separator='and': must be a mark"),
    ({"label": "y", "no_label": "none"}, r"data\.no_label='none'.*set data\.label_separator"),
    ({"label": ["y", "z"], "numeric": ["z"]}, r"data\.numeric: column 'z' is named in data\.label too"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CsvTable(**settings)  # type: ignore[arg-type]
