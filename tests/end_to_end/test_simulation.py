"""The default federation through every door, judged by Flower's status and by the files it leaves."""

import json
import os
import re
import shutil
import zipfile
from pathlib import Path

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


def test_flwr_run_gives_the_same_model(default: Finished, flower: Flower, tmp_path: Path) -> None:
    output, status = flower.run(f"run.output_dir={tmp_path / 'run'}", supernodes=4)
    assert status == "finished:completed", output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["supernodes"], default.summary["supernodes"]) == (4, os.cpu_count())
    assert summary["model_sha256"] == default.summary["model_sha256"]
    assert f"run_dir={tmp_path / 'run'}" in output


def test_flwr_run_says_what_is_wrong(flower: Flower, tmp_path: Path) -> None:
    output, status = flower.run(f"federation.num_round=3 run.output_dir={tmp_path / 'run'}")
    assert status == "finished:failed"
    assert "did you mean federation.num_rounds" in output
    assert not (tmp_path / "run").exists()


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
        shutil.rmtree(other)
        (flower.superlink.home / "conf").unlink()
    assert status == "finished:failed", output
    assert "another checkout" in output
    assert "scripts/run.py" in output
    assert not (tmp_path / "run").exists()


def test_the_bundle_builds_without_a_warning_and_holds_no_test(flower: Flower, tmp_path: Path) -> None:
    output = flower("build", "--app", str(ROOT), cwd=tmp_path)
    assert "warning" not in output.lower()
    assert "missing" not in output.lower()
    (bundle,) = tmp_path.glob("*.fab")
    names = zipfile.ZipFile(bundle).namelist()
    assert "conf/config.yaml" in names
    assert "conf/data/digits.yaml" in names
    assert "fedapp/server_app.py" in names
    assert not [name for name in names if "test" in Path(name).name or name.startswith(("tests/", "scripts/"))]


def test_a_data_set_of_ones_own_as_the_readme_shows_it(flower: Flower, tmp_path: Path) -> None:
    """Exactly what the README says: two new files beside the others, no edit elsewhere."""
    app = tmp_path / "checkout"
    for name in ("fedapp", "conf"):
        shutil.copytree(ROOT / name, app / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, app / name)
    section = (ROOT / "README.md").read_text().split("### A data set of your own")[1].split("\n## ")[0]
    blocks = re.findall(r"`((?:fedapp|conf)/\S+)`[^`]*```(?:python|yaml)\n(.*?)```", section, flags=re.DOTALL)
    assert [Path(name).suffix for name, _ in blocks] == [".py", ".yaml"]
    for name, text in blocks:
        assert not (app / name).exists()
        (app / name).write_text(text)
    command = re.search(r"python scripts/run.py (\S.*)", section)
    assert command is not None
    overrides = f"{command[1]} federation.num_rounds=2 run.output_dir={tmp_path / 'run'}"
    output, status = flower.run(overrides, app=app)
    assert status == "finished:completed", output
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["test_loss"] < lines[0]["test_loss"]
