"""`from fedapp import run`: tables and the model of a run, with nothing left in the caller's process."""

import asyncio
import logging
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

import fedapp
from fedapp.common.errors import FedappError, FederationError

ROOT = Path(__file__).parents[2]
RUN = ("data=breast_cancer", "model=logistic_regression", "federation.num_clients=3", "federation.num_rounds=2")


def state() -> tuple[object, ...]:
    """What of a process a library could leave changed."""
    handlers = tuple(signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    return (
        handlers,
        dict(os.environ),
        os.getcwd(),
        [*sys.path],
        random.getstate(),
        str(np.random.get_state()),
        torch.random.get_rng_state().tolist(),
        torch.get_num_threads(),
        logging.getLogger("flwr").handlers[:],
        {process.pid for process in psutil.Process().children(recursive=True)},
        {thread.ident for thread in threading.enumerate()},
    )


@pytest.mark.slow  # a whole run
def test_a_run_within_an_event_loop_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = state()

    async def cell() -> fedapp.RunResult:
        return fedapp.run(*RUN)

    result = asyncio.run(cell())
    assert state() == before
    assert result.summary["status"] == "finished"
    assert list(result.rounds.index) == [0, 1, 2]
    assert result.rounds.loc[2, "test_accuracy"] == result.summary["test_accuracy"]
    assert set(result.clients["client"]) == {0, 1, 2}
    assert result.clients["phase"].eq("final").sum() == 3
    assert result.model(torch.zeros(4, 30)).shape == (4, 2)
    assert not result.model.training
    assert "round 2/2" in capsys.readouterr().out
    assert result.directory.is_relative_to(tmp_path / "outputs")
    assert "<script" not in result._repr_html_()
    assert "sandbox" in result._repr_html_()


def test_a_refused_run_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FederationError, match=r"federation.num_rounds=0: must be at least 1"):
        fedapp.run("federation.num_rounds=0")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", ["digits", 3], ids=str)
def test_what_is_no_override_is_refused(given: object) -> None:
    with pytest.raises(FedappError, match="is no override"):
        fedapp.run(given)  # type: ignore[arg-type]


@pytest.mark.slow  # a notebook with two runs
def test_the_tutorial_runs(tmp_path: Path) -> None:
    import nbformat

    target = tmp_path / "tutorial.ipynb"
    target.write_text((ROOT / "docs" / "tutorial.ipynb").read_text(encoding="utf-8"), encoding="utf-8")
    code = (
        "import sys, nbformat\nfrom nbclient import NotebookClient\n"
        "book = nbformat.read(sys.argv[1], as_version=4)\n"
        "NotebookClient(book, timeout=400, kernel_name='python3').execute()\nnbformat.write(book, sys.argv[1])\n"
    )
    command = [sys.executable, "-c", code, str(target)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JUPYTER_PLATFORM_DIRS": "1", "IPYTHONDIR": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    book = nbformat.read(target, as_version=4)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    assert not [out for cell in cells for out in cell.outputs if out.output_type == "error"]
    assert any("text/html" in out.get("data", {}) for cell in cells for out in cell.outputs)
