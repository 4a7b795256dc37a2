"""scripts/mutations.py: what it would change is there, and it tells tests that can fail from tests that cannot."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT

sys.path.append(str(ROOT / "scripts"))

from mutants import Mutant, every_mutant
from mutants.trial import copy_checkout, outcome

MUTANTS = [mutant for those in every_mutant().values() for mutant in those]


def test_each_line_is_found_once_and_its_change_is_python(tmp_path: Path) -> None:
    for mutant in MUTANTS:
        assert mutant.old != mutant.new
        file = tmp_path / mutant.file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text((ROOT / mutant.file).read_text())
        mutant.apply(tmp_path)
        ast.parse(file.read_text(), filename=f"{mutant.file}: {mutant.new}")


@pytest.mark.slow
def test_each_test_is_there() -> None:
    for mutant in MUTANTS:
        file, _, name = mutant.test.partition("::")
        tree = ast.parse((ROOT / file).read_text())
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert not name or name.partition("[")[0] in functions, mutant.test


def test_each_mutant_is_there_once() -> None:
    assert len(MUTANTS) > 50
    assert len({(mutant.file, mutant.old, mutant.new) for mutant in MUTANTS}) == len(MUTANTS)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """With a module, one test that can fail and one that cannot, and a file that git ignores."""
    files = {
        "limit.py": "def within(size):\n    return size < 10\n",
        "test_limit.py": "from limit import within\n\ndef test_good():\n    assert not within(10)\n\n"
        "def test_blind():\n    within(10)\n",
        ".gitignore": "secret.py\n",
        "secret.py": "",
    }
    for name, content in files.items():
        (tmp_path / "from" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "from" / name).write_text(content)
    subprocess.run(["git", "init", "-q", tmp_path / "from"], check=True)
    return copy_checkout(tmp_path / "from", tmp_path / "to")


@pytest.mark.slow
def test_what_a_test_kills_and_what_it_does_not(checkout: Path) -> None:
    """A change of a file's length by nothing, within a second, as bytecode does not see it."""
    assert not (checkout / "secret.py").exists()
    before = (checkout / "limit.py").read_text()
    for test, new, expected in (
        ("test_good", "size < 11", "killed"),
        ("test_blind", "size < 11", "survived"),
        ("test_absent", "size < 11", "not tried"),
    ):
        found, _ = outcome(checkout, Mutant("limit.py", "size < 10", new, f"test_limit.py::{test}"), seconds=1.0)
        assert found.startswith(expected), found
        assert (checkout / "limit.py").read_text() == before


@pytest.mark.parametrize("old", ["size", "absent"])
def test_a_line_that_is_not_there_once_is_refused(checkout: Path, old: str) -> None:
    with pytest.raises(ValueError, match="what is there once"):
        Mutant("limit.py", old, "new", "test_limit.py").apply(checkout)
