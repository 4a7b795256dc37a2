"""scripts/run.py -m: several runs in one call."""

from pathlib import Path

import pytest
from commands import run_script
from tables import CSV, make_place

pytestmark = pytest.mark.slow


def test_a_sweep_gives_one_directory_each_and_a_table(tmp_path: Path) -> None:
    """Over the person's own table, named by a path relative to where they are, a client for every hospital."""
    place = make_place(tmp_path)
    overrides = f"{CSV}good.csv data.group=hospital partition=natural federation.num_clients=3 federation.num_rounds=1"
    sweep = run_script("-m", "optimizer.lr=0.01,0.02", *overrides.split(), cwd=place)
    assert sweep.code == 0, sweep.output
    directories = sorted(path.parent for path in place.rglob("summary.json"))
    assert len(directories) == 2
    configs = [(directory / "config.yaml").read_text() for directory in directories]
    assert ["lr: 0.01" in configs[0], "lr: 0.02" in configs[1]] == [True, True]
    rows = [line for line in sweep.output.splitlines() if "optimizer.lr=0.0" in line and "finished" in line]
    assert len(rows) == 2
    assert sweep.run_dir == directories[-1]
