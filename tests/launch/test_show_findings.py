"""What scripts/run.py says of a table before training, and with --check instead of it."""

import io
import re
from pathlib import Path

import pytest
from commands import run_script
from rich.console import Console

from fedapp.launch.show_findings import check_only

TABLE = "patient;age;sex;y\n" + "".join(
    f"p{i};{30 + i % 40},{i % 10};{'fm'[i % 2]};{'Yes' if i % 9 == 0 else 'yes' if i % 3 else 'no'}\n"
    for i in range(60)
)


def checked(folder: Path, *overrides: str) -> tuple[str, bool]:
    """What was said, and whether the run can start."""
    console = Console(record=True, width=200, file=io.StringIO())
    directory = folder / "run"
    directory.mkdir(exist_ok=True)
    path = folder / "t.csv"
    path.write_text(TABLE)
    fixed = ["data=csv", f"data.path={path}", "data.label=y", "model=mlp", "federation.num_clients=3"]
    done = check_only(console, [*fixed, *overrides], directory)
    assert not directory.exists()
    return console.export_text(), done.error is None


def test_what_was_inferred_and_what_looks_wrong_is_said(tmp_path: Path) -> None:
    said, fine = checked(tmp_path, "data.as_category=[patient]", "data.max_categories=60")
    assert fine
    for line in (
        "60 rows, 4 columns",
        "cells separated by ';'; decimal mark ',' in age",
        "label       y: Yes (7)",
        "numbers     1: age",
    ):
        assert line in said
    assert "warning: column 'y': 'Yes', 'yes' look alike" in said
    assert "warning: 'patient'" in said


def test_a_fault_in_the_table_is_said_once_with_its_remedy(tmp_path: Path) -> None:
    said, fine = checked(tmp_path)
    assert not fine
    assert said.count("error:") == 1
    assert re.search(r"t\.csv: column 'patient' has 60 distinct values.*'data\.ignore=\[patient\]'", said)


@pytest.mark.slow  # a process that imports all
def test_scripts_run_stops_after_the_check(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(TABLE)
    overrides = ["data=csv", "data.path=t.csv", "data.label=y", "data.ignore=[patient]", "model=mlp"]
    done = run_script(*overrides, "federation.num_clients=3", "--check", cwd=tmp_path)
    assert done.code == 0
    assert "numbers     1: age" in done.output
    assert done.output.strip().endswith("checked: the run can start")
    assert not list((tmp_path / "outputs").rglob("*.json"))
