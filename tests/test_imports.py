"""What is imported when: a person, a message and a starting simulation wait for it."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from fedapp.common.quick_import import quick_import

ROOT = Path(__file__).parents[1]


def printed(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("module", ["fedapp.server_app", "fedapp.client_app", "fedapp.launch.simulate"])
def test_torch_waits_until_other_processes_have_started(module: str) -> None:
    assert printed(f"import sys, {module}; print('torch' in sys.modules, 'ray' in sys.modules)") == "False False"


def test_collection_goes_on_after_an_import_also_one_that_fails() -> None:
    assert gc.isenabled()
    with quick_import():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), quick_import():
        raise ImportError
    assert gc.isenabled()
    gc.disable()
    try:
        with quick_import():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
