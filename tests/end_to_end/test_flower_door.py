"""`flwr run` as Flower users start it: errors at the terminal, the right code, a data set of one's own, the bundle."""

import json
import re
import shutil
import zipfile
from pathlib import Path

import pytest
from commands import ROOT, Flower

pytestmark = pytest.mark.slow


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
