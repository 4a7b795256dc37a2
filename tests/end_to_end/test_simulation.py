"""The default federation through every door, judged by Flower's status and by the files it leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from commands import ROOT, Finished, Flower, run_script
from in_process import run_in_process

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def default(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """scripts/run.py with the defaults."""
    return run_script(cwd=tmp_path_factory.mktemp("default"))


def test_the_default_run_learns(default: Finished) -> None:
    assert default.code == 0, default.output
    assert default.summary["status"] == "finished"
    assert default.summary["clients"] == 20
    assert default.summary["test_accuracy"] >= 0.95
    assert "test_accuracy" in default.output
    assert str(default.run_dir / "report.html") in default.output.replace("\n", "")
    assert (default.run_dir / "report.html").exists()


def test_it_is_close_to_training_on_the_pooled_data(default: Finished, tmp_path: Path) -> None:
    directory = run_in_process(tmp_path / "run", "experiment=pooled")
    pooled = json.loads((directory / "summary.json").read_text())
    assert pooled["clients"] == 1
    assert abs(pooled["test_accuracy"] - default.summary["test_accuracy"]) <= 0.02


def test_in_process_and_on_ray_the_model_is_the_same(default: Finished, tmp_path: Path) -> None:
    directory = run_in_process(tmp_path / "run", "", num_nodes=3)
    assert json.loads((directory / "summary.json").read_text())["model_sha256"] == default.summary["model_sha256"]


@pytest.mark.parametrize("supernodes", [2, 4])
def test_flwr_run_gives_the_same_model(default: Finished, flower: Flower, tmp_path: Path, supernodes: int) -> None:
    output, status = flower.run(f"run.output_dir={tmp_path / 'run'}", supernodes=supernodes)
    assert status == "finished:completed", output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["supernodes"] == supernodes
    assert summary["model_sha256"] == default.summary["model_sha256"]
    assert f"run_dir={tmp_path / 'run'}" in output


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ("federation.num_round=3", ["did you mean federation.num_rounds"]),
        ("run.output_dir=relative", ["run.output_dir=relative", "absolute"]),
    ],
)
def test_flwr_run_says_what_is_wrong(flower: Flower, overrides: str, parts: list[str]) -> None:
    output, status = flower.run(overrides)
    assert status == "finished:failed"
    assert all(part in output for part in parts), output


def test_another_checkouts_code_is_never_run(flower: Flower, tmp_path: Path) -> None:
    """A SuperLink whose folder holds another fedapp: Flower puts that one first for its workers."""
    other = flower.superlink.home / "fedapp"
    other.mkdir()
    try:
        for path in (ROOT / "fedapp").rglob("*.py"):
            copy = other / path.relative_to(ROOT / "fedapp")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(path.read_text() + "\n# another checkout\n")
        (flower.superlink.home / "conf").symlink_to(ROOT / "conf")
        output, status = flower.run(f"federation.num_rounds=1 run.output_dir={tmp_path / 'run'}")
    finally:
        subprocess.run(["rm", "-rf", str(other), str(flower.superlink.home / "conf")], check=True)
    assert status == "finished:failed", output
    assert "another checkout" in output
    assert "scripts/run.py" in output
    assert not (tmp_path / "run").exists()


def test_a_sweep_gives_one_directory_each_and_a_table(tmp_path: Path) -> None:
    sweep = run_script("-m", "optimizer.lr=0.01,0.02", "federation.num_rounds=1", cwd=tmp_path)
    assert sweep.code == 0, sweep.output
    directories = sorted(path.parent for path in tmp_path.rglob("summary.json"))
    assert len(directories) == 2
    configs = [(directory / "config.yaml").read_text() for directory in directories]
    assert ["lr: 0.01" in configs[0], "lr: 0.02" in configs[1]] == [True, True]
    rows = [line for line in sweep.output.splitlines() if "optimizer.lr=0.0" in line and "finished" in line]
    assert len(rows) == 2
    assert sweep.run_dir == directories[-1]


def test_ctrl_c_stops_the_run_and_leaves_no_process(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "run.py"), "federation.num_rounds=100000"]
    before = {process.pid for process in psutil.process_iter()}
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not any(
            '"round": 2' in file.read_text() for file in tmp_path.rglob("metrics.jsonl")
        ):
            time.sleep(0.2)
        children = psutil.Process(process.pid).children(recursive=True)
        assert any("flower-superlink" in " ".join(child.cmdline()) for child in children)
        os.kill(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "stopped" in output
    gone, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert gone
    left = [p.name() for p in psutil.process_iter() if p.pid not in before and p.name() in ("raylet", "gcs_server")]
    assert not left


def test_the_bundle_builds_without_a_warning_and_holds_no_test(flower: Flower, tmp_path: Path) -> None:
    import zipfile

    output = flower("build", "--app", str(ROOT), cwd=tmp_path)
    assert "warning" not in output.lower()
    assert "missing" not in output.lower()
    (bundle,) = tmp_path.glob("*.fab")
    names = zipfile.ZipFile(bundle).namelist()
    assert "conf/config.yaml" in names
    assert "conf/data/digits.yaml" in names
    assert "fedapp/server_app.py" in names
    assert not [name for name in names if "test" in Path(name).name or name.startswith(("tests/", "scripts/"))]
