"""scripts/run.py at a terminal: refusals and Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from commands import PATIENCE, ROOT, run_script
from tables import CSV, make_place

pytestmark = pytest.mark.slow


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return make_place(tmp_path)


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (f"{CSV}text.csv data.numeric=[age]", ["text.csv", "age", "young", "row 7"]),
        ("federation.num_clients=0", ["federation.num_clients=0", "at least 1"]),
    ],
)
@pytest.mark.parametrize("engine", ["local", "flower"])
def test_refused_before_anything_starts(place: Path, overrides: str, parts: list[str], engine: str) -> None:
    before = sorted(place.rglob("*"))
    done = run_script(*overrides.format(place=place).split(), f"run.engine={engine}", cwd=place)
    assert done.code != 0
    assert all(part in done.output for part in parts), done.output
    assert "Traceback" not in done.output
    assert [path for path in sorted(place.rglob("*")) if path not in before and path.is_file()] == []


def test_a_killed_script_leaves_no_process_either(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "run.py"), "model=logistic_regression", "run.num_supernodes=1"]
    command += ["run.engine=flower", "federation.num_rounds=100000", f"run.output_dir={tmp_path / 'run'}"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + PATIENCE
        metrics = tmp_path / "run" / "metrics.jsonl"
        while time.monotonic() < deadline and not (metrics.exists() and '"round": 2' in metrics.read_text()):
            time.sleep(0.2)
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    assert {"raylet", "gcs_server"} <= {child.name() for child in children}
    assert not psutil.wait_procs(children, timeout=60)[1]


@pytest.mark.parametrize("engine", ["local", "flower"])
def test_ctrl_c_stops_the_run_and_leaves_no_process(engine: str, place: Path) -> None:
    """While it trains on the person's own table, named relative to where they are, a client for every hospital."""
    overrides = f"{CSV}good.csv data.group=hospital partition=natural federation.num_clients=3"
    command = [sys.executable, str(ROOT / "scripts" / "run.py"), *overrides.split()]
    command += ["federation.num_rounds=100000", "run.num_supernodes=1", f"run.engine={engine}"]
    # Whoever starts the tests in the background has them ignore SIGINT, and what they start.
    heeding = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(
        command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **heeding
    ) as process:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and not any(
            '"round": 2' in file.read_text() for file in place.rglob("metrics.jsonl")
        ):
            time.sleep(0.2)
        children = [(child.name(), child) for child in psutil.Process(process.pid).children(recursive=True)]
        os.kill(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, output
    assert "stopped" in output
    assert "To go on with it: python scripts/run.py --resume /" in output
    names = {name for name, _ in children}
    assert ({"raylet", "gcs_server"} <= names) == (engine == "flower")
    assert not psutil.wait_procs([child for _, child in children], timeout=10)[1]
