"""The program that a SuperNode starts for each message: Flower's own, without what it does not need."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fedapp.deploy.workers import Workers
from fedapp.flower import quick_clientapp

SHOW = """
import sys
from fedapp.flower import quick_clientapp
{change}
found = quick_clientapp.command()
print(found.__module__, found.__name__, sorted({{"sqlalchemy", "uvicorn"}} & sys.modules.keys()))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "imported", "warnings"),
    [
        ("", "[]", 0),
        # As if Flower had moved the command: then the package is asked, as Flower's own script does.
        ("quick_clientapp.import_module = lambda name, real=quick_clientapp.import_module: real(name + '_x' * "
         "name.endswith('flwr_clientapp'))", "['sqlalchemy', 'uvicorn']", 1),
    ],
    ids=["now", "where Flower has changed"],
)  # fmt: skip
def test_it_is_flowers_function(change: str, imported: str, warnings: int) -> None:
    code = SHOW.format(change=change)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(maxsplit=2) == ["flwr.supernode.cli.flwr_clientapp", "flwr_clientapp", f"{imported}\n"]
    assert done.stderr.count("as fedapp expects it") == warnings


@pytest.mark.slow
def test_a_supernode_finds_it_by_flowers_name() -> None:
    with tempfile.TemporaryDirectory(prefix="a site ") as state:  # a short path, as sockets need
        path = Workers(Path(state), {"PATH": os.environ["PATH"]}, print).environment["PATH"]
        found = shutil.which("flwr-clientapp", path=path)
        assert found == f"{state}/bin/flwr-clientapp"
        assert Path(found).stat().st_mode & 0o777 == 0o700
        done = subprocess.run([found, "--help"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "--runtime-api-address" in done.stdout


@pytest.mark.slow
def test_no_fedapp_is_there_before_that_of_the_bundle() -> None:
    code = (
        "import runpy, sys; runpy.run_path(sys.argv[1])['command'](); print([n for n in sys.modules if 'fedapp' in n])"
    )
    line = [sys.executable, "-P", "-c", code, quick_clientapp.__file__]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr
