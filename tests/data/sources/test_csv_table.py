import math
from pathlib import Path
from typing import Any

import pytest
import torch

from fedapp.common.errors import ConfigError
from fedapp.data.source import Examples, Scaling
from fedapp.data.sources.csv_table import CsvTable

PATIENTS = """id,age,sex,hospital,outcome
a,50,f,north,1
b,61.5,m,north,0
c,40,f,south,0
d,33,m,south,1
e,72,f,east,1
"""
COLUMNS: dict[str, Any] = {"numeric": ["age"], "categorical": {"sex": ["m", "f"]}, "classes": ["0", "1"]}


def write(folder: Path, text: str, name: str = "table.csv") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return str(path)


def local(folder: Path, text: str, **fields: Any) -> Examples:
    return CsvTable(**{"label": "outcome", **COLUMNS, **fields}).local(Path(write(folder, text)))


def test_infers_columns_categories_and_classes(tmp_path: Path) -> None:
    path = write(tmp_path, PATIENTS)
    source = CsvTable("outcome", path, ignore=["id"], group="hospital", test_fraction=0.0)
    schema, pooled = source.schema(), source.pooled()
    assert schema.features == ("age", "sex=f", "sex=m")
    assert schema.classes == ("0", "1")
    assert schema.input_shape == (3,)
    assert schema.scaling == Scaling("federated")
    assert not schema.impute
    expected = [[50, 1, 0], [61.5, 0, 1], [40, 1, 0], [33, 0, 1], [72, 1, 0]]
    assert torch.equal(pooled.train.inputs, torch.tensor(expected, dtype=torch.float32))
    assert pooled.train.targets.tolist() == [1, 0, 0, 1, 1]
    assert pooled.columns == {"hospital": ["north", "north", "south", "south", "east"]}
    pooled.train.check(schema, path)


def test_a_device_reads_by_the_configured_columns(tmp_path: Path) -> None:
    examples = local(tmp_path, "outcome,extra,sex,age\n0,x,m,1\n1,y,f,2\n", group="hospital", ignore=["id"])
    assert examples.inputs.tolist() == [[1, 1, 0], [2, 0, 1]]
    assert examples.targets.tolist() == [0, 1]


def test_the_schema_needs_no_file_where_all_columns_are_given() -> None:
    schema = CsvTable("outcome", **COLUMNS, scaling="none").schema()
    assert schema.features == ("age", "sex=m", "sex=f")
    assert schema.scaling == Scaling("fixed", 0.0, 1.0)
    assert CsvTable("outcome", **COLUMNS).test() is None


def test_text_keeps_its_spelling(tmp_path: Path) -> None:
    path = write(tmp_path, "code,level,y\n007,1.0,01\n7,1.50,1\n08,1e1,10\n007,2,2\n")
    table = CsvTable("y", path, numeric=["level"], categorical={"code": ["007", "7", "08"]}, test_fraction=0.0)
    assert table.schema().classes == ("01", "1", "2", "10")
    assert table.pooled().train.inputs[:, 0].tolist() == [1.0, 1.5, 10.0, 2.0]
    assert table.pooled().train.inputs[:, 1:].argmax(1).tolist() == [0, 1, 2, 0]


def test_numeric_alone_or_categorical_alone_are_inferred(tmp_path: Path) -> None:
    path = write(tmp_path, PATIENTS)
    named: dict[str, Any] = {"label": "outcome", "path": path, "ignore": ["id", "hospital"]}
    assert CsvTable(**named, numeric=[]).schema().features == ("sex=f", "sex=m")
    assert CsvTable(**named, categorical={"sex": ["m", "f", "x"]}).schema().features == (
        "age",
        "sex=m",
        "sex=f",
        "sex=x",
    )


def test_regression(tmp_path: Path) -> None:
    path = write(tmp_path, "x,price\n1,2.5\n2,-1e3\n")
    source = CsvTable("price", path, regression=True, test_fraction=0.0)
    assert source.schema().classes == ()
    targets = source.pooled().train.targets
    assert targets.dtype == torch.float32
    assert targets.tolist() == [2.5, -1000.0]


def test_drop_leaves_out_incomplete_rows_and_their_group(tmp_path: Path) -> None:
    text = "age,sex,site,outcome\n1,m,a,0\nNA,m,b,0\n3,,c,1\n4,f,d,NaN\n5,f,,1\n6,f,f,1\n"
    source = CsvTable("outcome", write(tmp_path, text), missing="drop", group="site", test_fraction=0.0, **COLUMNS)
    pooled = source.pooled()
    assert pooled.train.inputs[:, 0].tolist() == [1.0, 6.0]
    assert pooled.columns == {"site": ["a", "f"]}


def test_mean_leaves_nan_for_the_model_and_no_category(tmp_path: Path) -> None:
    source = CsvTable("outcome", missing="mean", **COLUMNS)
    examples = source.local(Path(write(tmp_path, "age,sex,outcome\n,m,0\n3,NA,1\n")))
    assert source.schema().impute
    assert math.isnan(examples.inputs[0, 0])
    assert examples.inputs[1].tolist() == [3.0, 0.0, 0.0]
    examples.check(source.schema(), "table")


def test_a_listed_category_may_look_like_a_missing_value(tmp_path: Path) -> None:
    examples = local(tmp_path, "age,region,outcome\n1,NA,0\n2,EU,1\n", categorical={"region": ["EU", "NA"]})
    assert examples.inputs[:, 1:].tolist() == [[0.0, 1.0], [1.0, 0.0]]


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("\ufeffage,sex,outcome\n1,m,0\n", {}),  # Excel's mark of UTF-8
        ("age, sex, outcome\r\n1, m, 0\r\n", {}),
        ("age;sex;outcome\n1;m;0\n", {"delimiter": ";"}),
        ('"age","sex","outcome"\n"1","m","0"\n', {}),
        ("age,sex,outcome\n\n1,m,0\n,,\n\n", {}),
    ],
)
def test_dialects(tmp_path: Path, text: str, fields: dict[str, Any]) -> None:
    examples = local(tmp_path, text, **fields)
    assert examples.inputs.tolist() == [[1.0, 1.0, 0.0]]
    assert examples.targets.tolist() == [0]


def test_held_out_rows_come_from_the_table_or_from_the_test_table(tmp_path: Path) -> None:
    path = write(tmp_path, "x,y\n" + "".join(f"{i},{i % 2}\n" for i in range(20)))
    pooled = CsvTable("y", path, test_fraction=0.1).pooled()
    assert pooled.test is not None
    assert (len(pooled.train), len(pooled.test)) == (18, 2)
    other = CsvTable("y", path, test_path=write(tmp_path, "x,y\n99,1\n", "test.csv"))
    test = other.test()
    assert test is not None
    assert test.inputs.tolist() == [[99.0]]
    assert len(other.pooled().train) == 20


def test_given_constants_scale_numeric_columns_and_leave_the_others() -> None:
    table = CsvTable(label="outcome", **COLUMNS, scaling="given", means={"age": 50.0}, deviations={"age": 20.0})
    assert table.schema().scaling == Scaling("fixed", (50.0, 0.0, 0.0), (20.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"scaling": "given"}, "data.means"),
        ({"scaling": "given", "means": {"age": 5}, "deviations": {"height": 3}}, "data.deviations"),
        ({"scaling": "given", "means": {"age": 5}, "deviations": {"age": 0}}, "greater than 0"),
        ({"scaling": "given", "numeric": None}, "data.numeric"),
        ({"means": {"age": 5}}, "no effect under data.scaling=federated"),
    ],
)
def test_given_constants_must_fit(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        CsvTable(**{"label": "outcome", **COLUMNS, **fields})
