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


OPTIONAL = ("mlflow", "wandb", "optuna", "IPython", "pandas", "playwright", "starlette", "uvicorn")


def test_what_is_not_asked_for_is_not_imported() -> None:
    """A whole run without tracker, sweeper, notebook or live page has none of their packages. (Flower's own import of
    Starlette and Uvicorn is not ours to avoid.)"""
    code = (
        "import sys, tempfile; sys.path.insert(0, 'tests')\n"
        "from pathlib import Path\n"
        "import fedapp, fedapp.launch.simulate\n"
        f"before = [name for name in {OPTIONAL} if name in sys.modules]\n"
        "from in_process import run_in_process\n"
        "run = 'data=digits model=logistic_regression federation.num_rounds=1 federation.num_clients=2'\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    run_in_process(Path(folder) / 'run', run)\n"
        "print(before, [name for name in ('mlflow', 'wandb', 'optuna', 'IPython') if name in sys.modules])\n"
    )
    assert printed(code).splitlines()[-1] == "[] []"


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
