"""scripts/run.py -m: several runs in one call, on a data set of one's own, added as docs/architecture.md shows."""

import json
import re
from pathlib import Path

import pytest
from commands import ROOT, copy_of_this_checkout, run_script

pytestmark = pytest.mark.slow


def test_a_sweep_over_a_data_set_of_ones_own(tmp_path: Path) -> None:
    """Exactly what the documentation says: two new files beside the others, no edit elsewhere."""
    app = copy_of_this_checkout(tmp_path / "checkout")
    section = (ROOT / "docs" / "architecture.md").read_text().split("### A data set of your own")[1].split("\n### ")[0]
    blocks = re.findall(r"`((?:fedapp|conf)/\S+)`:?\n+```(?:python|yaml)\n(.*?)```", section, flags=re.DOTALL)
    assert [Path(name).suffix for name, _ in blocks] == [".py", ".yaml"]
    for name, text in blocks:
        assert not (app / name).exists()
        (app / name).write_text(text)
    command = re.search(r"^python scripts/run.py (\S.*)$", section, flags=re.MULTILINE)
    assert command is not None
    sizes = "federation.num_rounds=3 run.num_supernodes=1"
    sweep = run_script("-m", "optimizer.lr=0.01,0.02", *command[1].split(), *sizes.split(), cwd=tmp_path, root=app)
    assert sweep.code == 0, sweep.output
    directories = sorted(path.parent for path in tmp_path.rglob("summary.json"))
    assert len(directories) == 2
    assert sweep.run_dir == directories[-1]
    for directory, rate in zip(directories, ("0.01", "0.02"), strict=True):
        config = (directory / "config.yaml").read_text()
        assert f"lr: {rate}\n" in config
        assert "TwoMoons" in config
        lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
        assert lines[-1]["test_loss"] < lines[0]["test_loss"]
    rows = [line for line in sweep.output.splitlines() if "optimizer.lr=0.0" in line and "finished" in line]
    assert len(rows) == 2
