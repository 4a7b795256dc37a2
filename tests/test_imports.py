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


OPTIONAL = ("mlflow", "wandb", "optuna", "IPython", "ipykernel", "playwright", "starlette", "uvicorn")
FOUND = f"print([name for name in {OPTIONAL} if name in sys.modules])"


def test_the_command_imports_nothing_that_it_may_not_need() -> None:
    """What scripts/run.py imports before it knows what is asked for; pandas is imported with scikit-learn's data."""
    command = "import runpy, sys; runpy.run_path('scripts/run.py'); print('pandas' in sys.modules)"
    assert printed(f"{command}; {FOUND}").splitlines() == ["False", "[]"]


@pytest.mark.slow
def test_a_plain_run_imports_nothing_that_was_not_asked_for(tmp_path: Path) -> None:
    """A whole run of the command without tracker, sweeper, notebook or live page has none of their packages."""
    run = (
        "model=logistic_regression",
        "federation.num_rounds=1",
        "federation.num_clients=2",
        f"hydra.run.dir={tmp_path}",
    )
    code = (
        f"import runpy, sys; sys.argv = ['scripts/run.py', *{run}]\n"
        "try:\n    runpy.run_path('scripts/run.py', run_name='__main__')\n"
        "except SystemExit as error:\n    print(error.code)\n"
        f"{FOUND}"
    )
    assert printed(code).splitlines()[-3:] == [f"run_dir={tmp_path}", "0", "[]"]


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
