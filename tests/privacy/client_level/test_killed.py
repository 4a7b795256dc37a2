"""A server that is killed, at whatever moment: its ledger never shows less than was released."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fedapp.privacy.ledger import FileLedger
from fedapp.server.run_directory.checkpoint import checkpoint_files, load_checkpoint

pytestmark = pytest.mark.slow

HERE = Path(__file__).parents[2]
RUN = (
    "privacy=client_dp model=logistic_regression partition=iid federation.num_clients=8 federation.num_rounds=3"
    " privacy.accountant=rdp privacy.noise_multiplier=2 privacy.target_epsilon=null run.resume=auto"
)
# Each moment is the call, by number, of a function of the run, before or after which the process kills itself.
MOMENTS = {
    "before the ledger's line": ("fedapp.privacy.ledger.FileLedger", "append", 2, "before"),
    "after the ledger's line, before its head": ("fedapp.privacy.ledger", "write_atomically", 2, "before"),
    "after the ledger's head": ("fedapp.privacy.ledger.FileLedger", "append", 2, "after"),
    "before the noise": ("fedapp.privacy.client_level.central_step.CentralStep", "on_total", 2, "before"),
    "after the noise": ("fedapp.privacy.client_level.central_step.CentralStep", "on_total", 2, "after"),
    "before the round is recorded": ("fedapp.server.run_directory.record.RunRecord", "add_round", 3, "before"),
    "before the checkpoint": ("fedapp.server.run_directory.checkpoint_writer", "save_checkpoint", 3, "before"),
    "after the checkpoint": ("fedapp.server.run_directory.checkpoint_writer", "save_checkpoint", 3, "after"),
}
CHILD = """
import os, signal, sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, {tests!r})
from fedapp.privacy.client_level.central_step import CentralStep
from in_process import run_in_process

place, name, number, when = {moment!r}
calls = []
noised = CentralStep.on_total


def told(*given, **more):  # what was released is on the disk before anything else can happen
    found = noised(*given, **more)
    with open({released!r}, "a") as file:
        file.write("released\\n")
        file.flush()
        os.fsync(file.fileno())
    return found


CentralStep.on_total = told
if name:
    module, _, owner = place.rpartition(".") if place[place.rindex(".") + 1].isupper() else (place, "", "")
    holder = getattr(import_module(module), owner) if owner else import_module(module)
    before = getattr(holder, name)

    def killed(*given, **more):
        calls.append(name)
        if when == "before" and len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        found = before(*given, **more)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(holder, name, killed)
run_in_process(Path({directory!r}), {overrides!r})
"""


def child(directory: Path, released: Path, moment: tuple[str, str, int, str] = ("", "", 0, "")) -> int:
    code = CHILD.format(
        tests=str(HERE),
        moment=moment,
        released=str(released),
        directory=str(directory),
        overrides=f"{RUN} run.output_dir={directory}",
    )
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False).returncode


def rounds_in_ledger(directory: Path) -> int:
    return len(FileLedger(directory / "ledgers" / "server.jsonl").entries())


def count_of(released: Path) -> int:
    return len(released.read_text().splitlines()) if released.exists() else 0


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_ledger_never_shows_less_than_was_spent(tmp_path: Path, moment: str) -> None:
    directory, released = tmp_path / "run", tmp_path / "released"
    assert child(directory, released, MOMENTS[moment]) == -signal.SIGKILL
    assert 1 <= count_of(released) <= rounds_in_ledger(directory)
    recorded = [json.loads(line)["round"] for line in (directory / "metrics.jsonl").read_text().splitlines()]
    saved = max(load_checkpoint(path).server_round for path in checkpoint_files(directory / "checkpoint"))
    assert max(saved, *recorded) <= rounds_in_ledger(directory)
    killed_at = rounds_in_ledger(directory)
    assert child(directory, released) == 0
    found = json.loads((directory / "summary.json").read_text())
    assert found["status"] == "finished"
    assert found["privacy"]["rounds_in_ledger"] == rounds_in_ledger(directory) >= count_of(released) >= 3
    assert rounds_in_ledger(directory) == killed_at + 3 - saved  # what was paid for and lost is paid for again
