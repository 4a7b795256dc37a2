"""One file a site: in a folder, by a pattern, each in a folder of its own; as Parquet, and beside leavings."""

import gzip
from pathlib import Path

import pytest
import torch

from fedapp.common.errors import DataError
from fedapp.config import compose
from fedapp.data.sources.csv_table import CsvTable
from fedapp.data.tables.sites import site_files
from fedapp.learning.build import build_parts
from fedapp.learning.build_shards import build_shards

ROWS = {"north": ["1,f,no", "2,m,yes", "3,f,no"], "south": ["4,m,yes", "5,f,no"], "west": ["6,m,no", "7,m,yes"]}
LAYOUTS = {
    "a folder of files": ("", "{}.csv"),
    "compressed": ("", "{}.csv.gz"),
    "a pattern": ("*.csv", "{}.csv"),
    "folders": ("", "{}/table.csv"),
    "a pattern of folders": ("*/data.csv", "{}/data.csv"),
    "a deep folder": ("", "{}/2021/table.csv"),
}


def write(root: Path, name: str) -> None:
    for site, rows in ROWS.items():
        path = root / name.format(site)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Each site writes as its spreadsheet does.
        text = "age,sex,ill\n" + "\n".join(rows) + "\n"
        if site == "south":
            text = text.replace(",", ";")
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    for leaving in ("__MACOSX/._north.csv", "Thumbs.db", "desktop.ini", ".DS_Store", "north.csv~", "~$south.csv"):
        (root / leaving).parent.mkdir(exist_ok=True)
        (root / leaving).write_bytes(b"\0\1")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_file_is_a_client(tmp_path: Path, layout: str) -> None:
    pattern, name = LAYOUTS[layout]
    write(tmp_path, name)
    path = tmp_path / pattern if pattern else tmp_path
    overrides = ["data=csv", f"data.path='{path}'", "data.label=ill", "model=mlp", "data.test_fraction=0"]
    config = compose(
        [*overrides, *["data.group=site", "partition=natural", "federation.num_clients=3", "train.val_fraction=0"]]
    )
    parts = build_parts(config)
    shards = build_shards(config, parts)
    assert parts.task.schema.features == ("age", "sex=f", "sex=m")
    for client, rows in enumerate(ROWS.values()):
        assert shards.of(client).train.inputs[:, 0].tolist() == [float(row[0]) for row in rows]
    facts = "\n".join(parts.source.findings().facts)
    if "2021" not in name and "data.csv" not in name:
        assert (
            "sites       3: north, south, west; to make each a client, set data.group=site partition=natural" in facts
        )
    assert "cells separated by ';'" in facts


def test_a_device_reads_its_own_as_the_simulation_did(tmp_path: Path) -> None:
    write(tmp_path, "{}.csv")
    pooled = CsvTable("ill", str(tmp_path), test_fraction=0.0)
    device = CsvTable("ill", **pooled.settled())
    parts = [device.local(tmp_path / f"{site}.csv") for site in ROWS]
    assert torch.cat([part.inputs for part in parts]).equal(pooled.pooled().train.inputs)
    assert torch.cat([part.targets for part in parts]).equal(pooled.pooled().train.targets)


def test_a_column_of_that_name_comes_first(tmp_path: Path) -> None:
    for name, site in (("a", "x"), ("b", "y")):
        (tmp_path / f"{name}.csv").write_text(f"v,site,y\n1,{site},0\n2,{site},1\n")
    source = CsvTable("y", str(tmp_path), group="site", test_fraction=0.0)
    assert source.pooled().columns == {"site": ["x", "x", "y", "y"]}


@pytest.mark.parametrize(
    ("files", "pattern", "parts"),
    [
        ({"a.csv": "v,y\n1,0\n", "b.csv": "w,y\n1,0\n"}, "", ["b.csv: no column 'v', which", "a.csv has"]),
        ({"a.csv": "v,y\n1,0\n", "b.csv": "v,y\nx?,0\n2,1\n3,1\n"}, "", ["b.csv: column 'v'", "row 2: 'x?'"]),
        ({"a.csv": "v,y\n1,0\n", "a.parquet": "PAR1"}, "", ["a.parquet", "site 'a'"]),
        ({"notes.md": "x"}, "", ["no tables", "*.csv", "'notes.md'"]),
        ({"a.csv": "v,y\n1,0\n"}, "*.tsv", ["*.tsv: no tables"]),
    ],
)
def test_files_that_are_not_one_table_are_refused(
    tmp_path: Path, files: dict[str, str], pattern: str, parts: list[str]
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as raised:
        CsvTable("y", str(tmp_path / pattern) if pattern else str(tmp_path)).pooled()
    assert [part for part in parts if part not in str(raised.value)] == [], str(raised.value)


def test_a_file_whose_name_looks_like_a_pattern(tmp_path: Path) -> None:
    path = tmp_path / "t[1].csv"
    path.write_text("a,y\n1,0\n")
    assert site_files(path) == {"t[1]": path}


def test_parquet_gives_what_the_same_csv_gives(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "age": pa.array([1.5, None, 3.25, 7.0], pa.float32()),
        "count": pa.array([1, 2, 3, 4], pa.int16()),
        "sex": pa.array(["f", "m", None, " f"]).dictionary_encode(),
        "smokes": pa.array([True, False, True, True]),
        "seen": pa.array([0, 86_400, 172_800, 0], pa.timestamp("s")),
        "code": pa.array(["3,5", "4,25", "1,0", "2,5"]),
        "ill": pa.array([1.0, 0.0, 1.0, 0.0], pa.float64()),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=2)
    (tmp_path / "t.csv").write_text(
        "age,count,sex,smokes,seen,code,ill\n1.5,1,f,true,1970-01-01,'3.5',1\n,2,m,false,1970-01-02,4.25,0\n"
        "3.25,3,,true,1970-01-03,1.0,1\n7,4,f,true,1970-01-01,2.5,0\n".replace("'", "")
    )
    config = compose(["data=parquet", f"data.path={tmp_path}/t.parquet", "data.label=ill", "data.missing=mean"])
    found = build_parts(
        compose(
            [
                *["data=parquet", "data.label=ill", "data.missing=mean", "model=mlp", "data.test_fraction=0"],
                f"data.path={tmp_path}/t.parquet",
            ]
        )
    ).source
    assert config.data["_target_"].endswith("CsvTable")
    by_csv = CsvTable("ill", str(tmp_path / "t.csv"), classes=["0.0", "1.0"], missing="mean", test_fraction=0.0)
    assert found.schema() == by_csv.schema()
    assert found.pooled().train.inputs.nan_to_num(99).equal(by_csv.pooled().train.inputs.nan_to_num(99))
    assert found.pooled().train.targets.equal(by_csv.pooled().train.targets)


def test_a_damaged_or_nested_parquet_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [[1.0], [2.0]], "b": [1, 2], "y": [0, 1]}), path)
    with pytest.raises(DataError, match=r"t\.parquet: column 'a' holds list<.*data\.ignore"):
        CsvTable("y", str(path)).schema()
    assert CsvTable("y", str(path), ignore=["a"]).schema().features == ("b",)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"t\.parquet: cannot be read as Parquet"):
        CsvTable("y", str(path)).schema()
