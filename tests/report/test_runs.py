"""scripts/runs.py: runs of a folder, side by side."""

import json
from pathlib import Path

import pytest
import yaml
from saved_runs import load_script

from fedapp.report.runs import chosen, find_runs

HOSTILE = "<script>alert(1)</script>$x_{"


def leave(folder: Path, name: str | None, lr: float, accuracies: list[float], **summary: object) -> Path:
    """A run directory with what runs.py reads."""
    folder.mkdir(parents=True)
    config = {"task": {"name": "horizontal"}, "optimizer": {"lr": lr}, "run": {"name": name, "output_dir": str(folder)}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    lines = [
        {"round": index, "test_accuracy": value, "seconds": 1.5, "bytes_up": 1024, "bytes_down": 1024}
        for index, value in enumerate(accuracies)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if summary:
        (folder / "summary.json").write_text(json.dumps({"test_accuracy": accuracies[-1], **summary}))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    leave(tmp_path / "runs" / "a" / "1", "wide", 0.1, [0.1, 0.5], status="finished", seconds=12.0, epsilon_max=2.5)
    leave(tmp_path / "runs" / "a" / "2", HOSTILE, 0.2, [0.1, 0.75])
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "config.yaml").write_text("- no mapping")
    (tmp_path / "runs" / "broken" / "metrics.jsonl").write_text("")
    return tmp_path / "runs"


def test_a_row_for_each_run(folder: Path) -> None:
    runs, faults = find_runs(folder)
    rows = {run.name: run.cells() for run in runs}
    assert rows["wide"] == (
        *("wide", "horizontal", "finished", "1", "accuracy 0.5000", "2.5000", "4.0 KiB", "12.0 s", "optimizer.lr=0.1"),
    )
    assert rows[HOSTILE][2:6] == ("unfinished", "1", "accuracy 0.7500", "-")
    assert rows[HOSTILE][7:] == ("3.0 s", "optimizer.lr=0.2")
    assert len(faults) == 1
    assert "broken" in faults[0]
    assert chosen(runs, ["wide"])[0].differs == {}  # there is none beside it


def test_the_page_has_hostile_names_as_text(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    page = tmp_path / "runs.html"
    assert load_script("runs").main([str(folder), "--html", str(page)]) == 0
    text = page.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert text.count("<figure>") == 3  # accuracy, bytes, seconds
    assert HOSTILE in capsys.readouterr().out
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["{folder}/none"], "is no folder"), (["{folder}", "--only", "deep"], "--only deep: no run is called so")],
    ids=["folder", "name"],
)
def test_what_is_not_there_is_said(
    folder: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_script("runs").main([one.format(folder=folder) for one in arguments]) == 2
    assert said in capsys.readouterr().err
