"""scripts/run.py refuses what cannot work: one message, exit status not 0, nothing started, nothing left behind."""

from pathlib import Path

import pytest
from commands import run_script

pytestmark = pytest.mark.slow

TABLE = "age,hospital,outcome\n" + "".join(f"{20 + i},h{i % 3},{'ill' if i % 2 else 'well'}\n" for i in range(60))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "good.csv").write_text(TABLE)
    (tmp_path / "nan.csv").write_text(TABLE.replace("\n25,", "\n,"))
    (tmp_path / "text.csv").write_text(TABLE.replace("\n25,", "\nyoung,"))
    images = tmp_path / "images" / "a"
    images.mkdir(parents=True)
    (images / "broken.png").write_bytes(b"not an image")
    (tmp_path / "file").write_text("")
    return tmp_path


CSV = "data=csv data.label=outcome model=mlp data.path="
REFUSED = [
    ("federation.num_clients=0", ["federation.num_clients=0", "at least 1"]),
    ("federation.num_round=3", ["federation.num_round", "federation.num_rounds"]),
    ("data=nothing", ["nothing", "breast_cancer"]),
    ("federation.num_clients=5000", ["federation.num_clients=5000", "1437"]),
    (f"{CSV}good.csv data.label=result", ["good.csv", "result", "outcome"]),
    (f"{CSV}nan.csv data.numeric=[age]", ["nan.csv", "age", "row 7"]),
    (f"{CSV}text.csv data.numeric=[age]", ["text.csv", "age", "young", "row 7"]),
    (f"{CSV}good.csv data.classes=[well]", ["good.csv", "ill", "well"]),
    ("data=image_folder data.path=images", ["broken.png"]),
    ("run.output_dir={place}/file/run", ["run.output_dir", "file/run", "cannot be written"]),
]


@pytest.mark.parametrize(("overrides", "parts"), REFUSED, ids=[overrides for overrides, _ in REFUSED])
def test_refused_before_anything_starts(place: Path, overrides: str, parts: list[str]) -> None:
    before = sorted(place.rglob("*"))
    done = run_script(*overrides.format(place=place).split(), cwd=place)
    assert done.code != 0
    assert all(part in done.output for part in parts), done.output
    assert "Traceback" not in done.output
    left = [path for path in sorted(place.rglob("*")) if path not in before and path.is_file()]
    assert not left


def test_a_good_table_of_a_relative_path_trains(place: Path) -> None:
    overrides = f"{CSV}good.csv data.group=hospital partition=natural federation.num_clients=3 federation.num_rounds=1"
    done = run_script(*overrides.split(), cwd=place)
    assert done.code == 0, done.output
    assert done.summary["clients"] == 3
    assert done.summary["rounds"] == 1
