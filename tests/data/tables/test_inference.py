"""What is inferred from a table, what is refused because it would be wrong, and what is warned of."""

from pathlib import Path
from typing import Any

import pytest

from fedapp.common.errors import DataError
from fedapp.config import compose
from fedapp.data.sources.csv_table import CsvTable


def table(folder: Path, column: list[str], name: str = "a", labels: str = "01", **fields: Any) -> CsvTable:
    rows = [f'"{cell}",{i},{labels[i % len(labels)]}' for i, cell in enumerate(column)]
    path = folder / "t.csv"
    path.write_text("\n".join([f"{name},b,y", *rows]) + "\n", encoding="utf-8")
    return CsvTable(**{"label": "y", "path": str(path), "test_fraction": 0.0, "ignore": ["b"], **fields})


def numbers(count: int, *odd: str) -> list[str]:
    return [str(i / 4) for i in range(count)] + list(odd)


NEARLY = {
    "a question mark": (numbers(302, "?"), ["holds numbers", "1 of 303", "row 304: '?'", "more_missing_values"]),
    "another word for it": (numbers(302, "none"), ["row 304: 'none'", "data.missing=drop"]),
    "two slips of the pen": (numbers(30, "4O", "l2"), ["2 of 32 cells", "row 32: '4O'", "row 33: 'l2'"]),
    "a sum": (numbers(30, "Total"), ["row 32: 'Total'", "'data.ignore=[a]'"]),
    "mixed marks": (numbers(30, "3,52"), ["row 32: '3,52'"]),
    "dates with a word": ([f"2021-03-{i + 1:02d}" for i in range(20)] + ["soon"], ["holds dates", "row 22: 'soon'"]),
    "a unit": ([f"{i} kg" for i in range(20)], ["row 2: '0 kg'", "numbers with 'kg'", "'data.as_category=[a]'"]),
    "percent": ([f"{i}%" for i in range(20)], ["numbers with '%'"]),
    "currency": ([f"€{i}" for i in range(20)], ["numbers with '€'"]),
    "names": ([f"name {chr(97 + i % 26)}{i}" for i in range(60)], ["60 distinct", "max_categories=50", "[a]'"]),
}


@pytest.mark.parametrize("case", NEARLY)
def test_a_column_that_is_not_quite_what_it_seems_is_refused(tmp_path: Path, case: str) -> None:
    column, parts = NEARLY[case]
    with pytest.raises(DataError) as raised:
        table(tmp_path, column).pooled()
    assert [part for part in ["t.csv", "column 'a'", *parts] if part not in str(raised.value)] == [], str(raised.value)


@pytest.mark.parametrize(
    ("override", "count", "features"),
    [
        ({"more_missing_values": ["?"], "missing": "drop"}, 30, ("a",)),
        ({"more_missing_values": ["?"], "missing": "mean"}, 31, ("a",)),
        ({"ignore": ["a"]}, 31, ("b",)),
        ({"as_category": ["a"]}, 31, None),
    ],
)
def test_each_remedy_that_is_named_works(
    tmp_path: Path, override: dict[str, Any], count: int, features: tuple[str, ...] | None
) -> None:
    source = table(tmp_path, numbers(30, "?"), **override)
    assert len(source.pooled().train) == count
    if features is None:
        assert source.schema().features == tuple(f"a={value}" for value in sorted(numbers(30, "?")))
    else:
        assert source.schema().features == features


def test_what_a_missing_value_looks_like_may_be_a_number(tmp_path: Path) -> None:
    source = table(tmp_path, ["1", "-999", "-999.0", "4"], more_missing_values=[-999], missing="drop")
    assert source.pooled().train.inputs.tolist() == [[1.0], [4.0]]


def test_a_label_of_numbers_with_a_question_mark_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"column 'y', row 4: '\?' is no number as the other.*data.missing=drop"):
        table(tmp_path, numbers(20), labels="01?10").pooled()


def warnings(source: CsvTable) -> str:
    source.pooled()
    return "\n".join(source.findings().warnings)


def test_spaces_are_no_part_of_a_class(tmp_path: Path) -> None:
    cells = ["yes ", " yes", "yes\u00a0", "\u3000yes", "yes\u200b", "no"] * 5
    source = table(tmp_path, cells)
    assert source.schema().features == ("a=no", "a=yes")
    assert warnings(source) == ""


@pytest.mark.parametrize("pair", [("yes", "Yes"), ("type-1", "type 1"), ("ｙ", "y"), ("1.0", "1"), ("x.", "X")])  # noqa: RUF001
def test_what_looks_alike_is_warned_of(tmp_path: Path, pair: tuple[str, str]) -> None:
    source = table(tmp_path, [*pair, "other"] * 9, as_category=["a"])
    assert f"column 'a': {sorted(pair)[0]!r}, {sorted(pair)[1]!r} look alike" in warnings(source)
    assert "data.ignore_case=true" in warnings(source)


def test_classes_that_look_alike_are_warned_of_and_can_be_joined(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,y\n" + "".join(f"{i / 8},{label}\n" for i, label in enumerate(["yes", "Yes", "no"] * 9)))
    source = CsvTable("y", str(path), test_fraction=0.0)
    assert "column 'y': 'Yes', 'yes' look alike, and are classes of their own" in warnings(source)
    joined = CsvTable("y", str(path), test_fraction=0.0, ignore_case=True)
    assert joined.schema().classes == ("Yes", "no")
    assert joined.pooled().train.targets.tolist() == [0, 0, 1] * 9
    assert warnings(joined) == ""


def test_a_category_that_stands_for_nothing_is_warned_of(tmp_path: Path) -> None:
    source = table(tmp_path, ["red", "green", "?", "unknown"] * 5)
    assert "column 'a': '?', 'unknown' counts as one of the categories" in warnings(source)


@pytest.mark.parametrize("name", ["id", "patient_id", "PatientID", "record nr", "Unnamed: 0", "uuid"])
def test_identifiers_are_warned_of_and_left_out_by_one_override(tmp_path: Path, name: str) -> None:
    column = [str(7 * i % 997) for i in range(40)]
    told = warnings(table(tmp_path, column, name=name, ignore=[]))
    line = next(part for part in told.splitlines() if "looks like an identifier" in part).partition("set ")[2]
    config = compose(["data=csv", "data.label=y", line.strip("'")])  # as a shell gives it
    assert config.data["ignore"] == [name, "b"]


def test_a_number_for_each_row_is_a_measurement_unless_its_name_says_otherwise(tmp_path: Path) -> None:
    assert warnings(table(tmp_path, [str(7 * i % 997) for i in range(40)], name="dose")) == ""
    assert "'a': a number of its own" in warnings(table(tmp_path, [str(i) for i in range(40)]))  # they count up


def test_numbers_with_leading_zeros_are_warned_of(tmp_path: Path) -> None:
    source = table(tmp_path, [f"0{i % 7}345" for i in range(40)], name="zip")
    assert "column 'zip': numbers with leading zeros look like codes" in warnings(source)
    taken = table(tmp_path, [f"0{i % 7}345" for i in range(40)], name="zip", as_category=["zip"])
    assert len(taken.schema().features) == 7


def test_what_was_found_is_told(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("age;sex;ward;note;ill\n" + "5;f;a;x;no\n7;m;b;x;yes\n6;f;b;x;no\n")
    source = CsvTable("ill", str(path), test_fraction=0.0, ignore=["note"], group="ward")
    assert source.findings().facts == (
        f"{path}: 3 rows, 5 columns",
        "written     cells separated by ';'",
        "label       ill: no (2), yes (1)",
        "numbers     1: age",
        "categories  1: sex (2)",
        "groups      1: ward",
        "left out    1: note",
    )


@pytest.mark.parametrize(
    ("labels", "rare"),
    [("0" * 97 + "1" * 3, "'1' (3 %)"), ("0" * 95 + "1" * 5, ""), ("01", ""), ("".join(map(chr, range(97, 122))), "")],
)
def test_a_rare_class_is_warned_of(tmp_path: Path, labels: str, rare: str) -> None:
    said = warnings(table(tmp_path, numbers(100), labels=labels))
    assert (f"column 'y': {rare} is rare: accuracy hardly tells" in said) == bool(rare)
    assert ("task.loss.class_weights=balanced" in said) == bool(rare)
