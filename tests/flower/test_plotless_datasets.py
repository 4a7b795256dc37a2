"""Flower Datasets come without their plotting, which can still be had; where that fails, with it."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2]
IMPORT = """
import sys
from fedapp.flower.plotless_datasets import import_flower_datasets
import_flower_datasets()
import_flower_datasets()
"""
INSTALLED = f"""{IMPORT}
from flwr_datasets.partitioner import IidPartitioner
print("matplotlib" in sys.modules, "seaborn" in sys.modules)
from flwr_datasets.visualization import plot_label_distributions
print(callable(plot_label_distributions))
"""
CHANGED = f"""
import sys
sys.path.insert(0, sys.argv[1])
{IMPORT}
import flwr_datasets
print(flwr_datasets.__file__.startswith(sys.argv[1]), flwr_datasets.plot())
"""


def printed(code: str, *arguments: str) -> tuple[list[str], str]:
    line = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(line, capture_output=True, text=True, cwd=HERE, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


@pytest.mark.slow
def test_partitioners_come_without_plotting_which_can_still_be_had() -> None:
    """Fails where flwr_datasets imports matplotlib elsewhere, which costs a second: see what it imports now."""
    words, logged = printed(INSTALLED)
    assert words == ["False", "False", "True"]
    assert "as fedapp expects it" not in logged


def test_a_package_that_needs_its_plotting_is_imported_with_it(tmp_path: Path) -> None:
    package = tmp_path / "flwr_datasets"
    package.mkdir()
    (package / "__init__.py").write_text("from flwr_datasets.other import plot\n")
    (package / "other.py").write_text("from flwr_datasets.visualization import plot\n")
    (package / "visualization.py").write_text("def plot():\n    return 'plotted'\n")
    words, logged = printed(CHANGED, str(tmp_path))
    assert words == ["True", "plotted"]
    assert logged.count("as fedapp expects it") == 1
