"""The list of the files of one plain round, in docs/architecture.md: short, and true."""

import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT

MOST_FILES, MOST_LINES = 22, 2950


def listed() -> list[str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "round_files.py")], capture_output=True, text=True, check=True
    )
    *lines, total = done.stdout.splitlines()
    counts = {line.split()[1]: int(line.split()[0]) for line in lines}
    assert total.split() == [str(sum(counts.values())), "lines", "in", str(len(counts)), "files"]
    assert len(counts) <= MOST_FILES
    assert sum(counts.values()) <= MOST_LINES
    return list(counts)


@pytest.mark.slow
def test_a_plain_round_takes_few_files_and_lines_and_really_runs_each(tmp_path: Path) -> None:
    files = listed()
    assert "fedapp/server/rounds.py" in files
    assert "fedapp/client/site.py" in files
    code = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
from pathlib import Path
from in_process import InProcessGrid, run_on
entered = set()

def look(frame, event, argument):
    entered.add(frame.f_code.co_filename)

overrides = "model=logistic_regression federation.num_clients=4 federation.num_rounds=1"
grid = InProcessGrid(overrides)
sys.setprofile(look)
run_on(grid, Path({str(tmp_path / "run")!r}), overrides)
sys.setprofile(None)
print("\\n".join(sorted(entered)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    entered = set(done.stdout.splitlines())
    assert [file for file in files if str(ROOT / file) not in entered] == []
