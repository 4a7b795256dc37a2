"""Processes that are killed, interrupted or starved: the run says so, and none is left behind."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from commands import copy_of_this_checkout, run_script
from in_process import run_in_process
from watched import ENDLESS, Watched, watched

pytestmark = pytest.mark.slow

THREE_ROUNDS = ENDLESS.replace("100000", "12")


def rows(directory: Path, name: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (directory / name).read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith(("seconds", "time"))} for line in lines]


def summary(directory: Path) -> dict[str, object]:
    return dict(json.loads((directory / "summary.json").read_text()))


def test_a_worker_that_is_killed_costs_its_clients_the_round_and_nothing_else(tmp_path: Path) -> None:
    with watched(tmp_path, f"{ENDLESS} federation.max_failed_rounds=100000") as run:
        run.wait_for(lambda: run.rounds >= 2)
        before = run.of_generation(3)
        assert len(before) == 2
        before[0].send_signal(signal.SIGSTOP)  # so that it is at work when it dies
        run.wait_for(lambda: before[1].cpu_percent(0.3) < 1)
        before[0].kill()
        killed_in = run.rounds + 1
        run.wait_for(lambda: run.rounds >= killed_in + 2)
        after = run.of_generation(3)
        assert len(after) == 2
        assert before[1] in after
        run.process.send_signal(signal.SIGINT)
        run.end()
    lines = rows(run.directory, "clients.jsonl")
    failed = [line for line in lines if line["rejected"]]
    assert {line["round"] for line in failed} == {killed_in}
    assert all("no reply: the worker process has ended" in str(line["rejected"]) for line in failed)
    assert [line for line in lines if line["round"] == killed_in and not line["rejected"]]
    assert "another one takes its place" in (run.directory / "flwr.log").read_text()


def kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        process.kill()


ENDS: dict[str, Callable[[Watched], None]] = {
    "Ctrl-C": lambda run: run.process.send_signal(signal.SIGINT),
    "SIGTERM": lambda run: run.process.send_signal(signal.SIGTERM),
    "SIGKILL": lambda run: run.process.kill(),
    "SIGKILL of the zygote": lambda run: run.of_generation(1)[0].kill(),
    "SIGKILL of the run's parent": lambda run: kill(run.of_generation(2)),
}
STATUS = {"Ctrl-C": 130, "SIGTERM": 130, "SIGKILL": -9, "SIGKILL of the zygote": 1, "SIGKILL of the run's parent": 1}


@pytest.mark.parametrize("how", ENDS)
def test_nothing_is_left_however_it_ends(how: str, tmp_path: Path) -> None:
    with watched(tmp_path) as run:
        run.wait_for(lambda: run.rounds >= 1)
        family = run.family()
        assert len(family) == 5  # zygote, writer of reports, the run's parent, two workers
        ENDS[how](run)
        status, output = run.end()
        assert not psutil.wait_procs(family, timeout=10)[1]
    assert status == STATUS[how], output
    assert "Traceback" not in output
    if how in ("Ctrl-C", "SIGTERM"):
        assert "stopped" in output
    if status >= 0:
        assert f"To go on with it: python scripts/run.py --resume {run.directory}\n" in output
    if status == 1:
        assert "has ended; was it killed?" in output


def test_killed_and_resumed_it_ends_with_the_same_model(tmp_path: Path) -> None:
    whole = run_in_process(tmp_path / "whole", THREE_ROUNDS, num_nodes=1)
    with watched(tmp_path, f"{THREE_ROUNDS} run.num_supernodes=1") as run:
        run.wait_for(lambda: run.rounds >= 4)
        run.process.kill()
        run.end()
    assert not (run.directory / "summary.json").exists()
    again = [*THREE_ROUNDS.split(), f"run.output_dir={run.directory}", "run.resume=auto"]
    resumed = run_script(*again, "run.num_supernodes=1", cwd=tmp_path)
    assert resumed.code == 0, resumed.output
    assert "going on after round" in (run.directory / "flwr.log").read_text()
    assert summary(run.directory)["model_sha256"] == summary(whole)["model_sha256"]
    for name in ("metrics.jsonl", "clients.jsonl"):
        assert rows(run.directory, name) == rows(whole, name)


def test_two_at_once_in_a_hostile_environment(tmp_path: Path) -> None:
    """A TMPDIR longer than a socket's path may be, a proxy that is not there; and nothing goes to /dev/shm."""
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    proxy = "http://127.0.0.1:9"
    environment = {"TMPDIR": str(deep), "http_proxy": proxy, "https_proxy": proxy, "HTTP_PROXY": proxy}
    shared = set(os.listdir("/dev/shm"))
    with watched(tmp_path, THREE_ROUNDS, name="one", environment=environment) as one:  # noqa: SIM117
        with watched(tmp_path, THREE_ROUNDS, name="two", environment=environment) as two:
            one.wait_for(lambda: one.rounds >= 1)
            assert set(os.listdir("/dev/shm")) <= shared
            ends = [run.end() for run in (one, two)]
    assert [status for status, _ in ends] == [0, 0], ends
    assert summary(one.directory)["model_sha256"] == summary(two.directory)["model_sha256"]
    assert [path for path in deep.iterdir() if not path.name.startswith("torchinductor_")] == []


THREAD = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""


def test_parts_that_start_threads_are_not_forked(tmp_path: Path) -> None:
    """Workers are spawned in their place; the model is the same one."""
    app = copy_of_this_checkout(tmp_path / "checkout")
    module = app / "fedapp" / "models" / "mlp.py"
    module.write_text(module.read_text() + THREAD)
    overrides = f"{THREE_ROUNDS.replace('12', '2')} model=mlp"
    done = run_script(*overrides.split(), cwd=tmp_path, root=app)
    assert done.code == 0, done.output
    assert "workers cannot be forked" in (done.run_dir / "flwr.log").read_text()
    alone = run_in_process(tmp_path / "alone", overrides)
    assert done.summary["model_sha256"] == summary(alone)["model_sha256"]
