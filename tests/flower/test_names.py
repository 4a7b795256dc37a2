"""Names of Flower's internals: found, or missed with one warning; and what importing them brings."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME

from fedapp.flower.names import find

ROOT = Path(__file__).parents[2]
EVERY_MODULE = """
import sys
from importlib import import_module
from pathlib import Path
for file in sorted(Path("fedapp/flower").glob("*.py")):
    import_module(f"fedapp.flower.{file.stem}")
print(sorted({name.split(".")[0] for name in sys.modules} & {"torch", "ray"}))
print(sorted({name.split(".")[1] for name in sys.modules if name.startswith("fedapp.")}))
"""


def test_a_name_is_found() -> None:
    found = find("flwr.supercore.constant", "FLWR_IN_MEMORY_DB_NAME", otherwise="never")
    assert found == FLWR_IN_MEMORY_DB_NAME


def test_a_missing_name_is_logged_once(warned: Callable[[], list[str]]) -> None:
    for _ in range(3):
        assert find("flwr.supercore.constant", "NO_SUCH", otherwise="things are slower") is None
        assert find("flwr.no_such_module", "NAME", otherwise="things are slower") is None
    assert len(warned()) == 2
    assert "flwr.supercore.constant.NO_SUCH" in warned()[0]
    assert "things are slower" in warned()[0]


def test_it_is_cheap_to_import_and_at_the_bottom() -> None:
    done = subprocess.run([sys.executable, "-c", EVERY_MODULE], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "['common', 'flower']"]
