"""`flwr run` as Flower users start it: errors at the terminal, the right code, the bundle."""

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
