"""What `flwr run` is given makes the same bundle as the whole folder would."""

import shutil
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk

from fedapp.launch.bundle import APP, stage_app


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """This app as it is, without what is beside it, and with a few things that do not belong into a bundle."""
    app = tmp_path / "app"
    for name in ("fedapp", "conf"):
        shutil.copytree(APP / name, app / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", ".gitignore", "README.md", "LICENSE"):
        shutil.copy(APP / name, app / name)
    for name in ("tests/README.md", ".venv/lib/fedapp/module.py", "outputs/run/config.yaml", "fedapp/data.bin"):
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        (app / name).write_text("not for the bundle")
    (app / "fedapp" / "link.py").symlink_to(app / "fedapp" / "errors.py")
    return app


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern")  # what Flower calls it by
def test_the_bundle_is_the_same(app: Path, tmp_path: Path) -> None:
    staged = stage_app(tmp_path / "staged", app)
    assert staged == tmp_path / "staged"
    assert not (staged / ".venv").exists()
    assert not (staged / "fedapp" / "link.py").exists()
    assert build_fab_from_disk(staged) == build_fab_from_disk(app)


@pytest.mark.parametrize("patterns", ['["fedapp/**/*.py", "README.md"]', "[]"])
def test_patterns_that_fit_any_folder_are_left_to_flower(app: Path, tmp_path: Path, patterns: str) -> None:
    project = app / "pyproject.toml"
    lines = [line for line in project.read_text().splitlines() if not line.startswith("fab-include")]
    where = lines.index("[tool.flwr.app]") + 1
    project.write_text("\n".join([*lines[:where], f"fab-include = {patterns}", *lines[where:]]))
    assert stage_app(tmp_path / "staged", app) == app
