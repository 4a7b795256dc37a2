"""A run with buffered rounds that is killed, in the middle of a buffer too, ends as one that was left alone."""

import json
import multiprocessing
import os
import signal
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from in_process import run_in_process

from fedapp.common.errors import ConfigError
from fedapp.server.asynchronous import asynchronous_rounds
from fedapp.server.asynchronous.asynchronous_rounds import AsynchronousRounds
from fedapp.server.run_directory.checkpoint import checkpoint_files, load_checkpoint

BASE = (
    "federation.num_rounds=6 federation.num_clients=6 rounds=buffered rounds.concurrency=4 rounds.buffer_size=3"
    " federation.client_speed=lognormal federation.dropout=0.2 federation.round_timeout=3 federation.exclude_after=1"
    " federation.exclude_rounds=2 rounds.max_staleness=1 run.resume=auto"
)
TASKS = {
    "adam on the server": f"{BASE} strategy=fedadam model=logistic_regression lr_schedule@client_lr=cosine",
    "median": f"{BASE} strategy=median rounds.staleness_exponent=0 model=logistic_regression",
    "one bit": f"{BASE} compression=drive model=logistic_regression",
    "personal heads": f"{BASE} model=mlp federation.personal=head",
    "synchronous in virtual time": (
        "federation.num_rounds=6 federation.num_clients=6 federation.fraction_train=0.5 federation.over_selection=0.4"
        " federation.client_speed=lognormal federation.dropout=0.2 federation.round_timeout=3 run.resume=auto"
        " model=logistic_regression"
    ),
}
TOLD_APART = ("seconds", "time", "bytes_down")  # a resumed run asks again who was at work


def go(directory: Path, overrides: str) -> Path:
    return run_in_process(directory, f"{overrides} run.output_dir={directory}", report=False)


def rows(directory: Path, name: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (directory / name).read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith(TOLD_APART)} for line in lines]


def assert_same(directory: Path, whole: Path) -> None:
    for name in ("metrics.jsonl", "clients.jsonl", "arrivals.jsonl"):
        assert rows(directory, name) == rows(whole, name)
    sums = [json.loads((path / "summary.json").read_text())["model_sha256"] for path in (directory, whole)]
    assert sums[0] == sums[1]


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of each task, a run that was never interrupted."""

    @cache
    def whole_of(task: str) -> Path:
        return go(tmp_path_factory.mktemp("whole") / "run", TASKS[task])

    return whole_of


def interrupted(directory: Path, overrides: str, after: int, *, kill: bool = False) -> None:
    """A run that ends just after it has taken its `after`-th reply, or other end of a job."""
    taken, left = AsynchronousRounds._take, after

    def take(self: AsynchronousRounds, *arguments: Any) -> None:
        nonlocal left
        taken(self, *arguments)
        left -= 1
        if not left and kill:
            os.kill(os.getpid(), signal.SIGKILL)
        if not left:
            raise KeyboardInterrupt

    with patch.object(asynchronous_rounds.AsynchronousRounds, "_take", take):
        go(directory, overrides)


@pytest.mark.slow
@pytest.mark.parametrize("save_every", ["null", 1, 2])
@pytest.mark.parametrize("after", [1, 5, 8, 13])
@pytest.mark.parametrize("task", TASKS)
def test_interrupted_after_any_reply(wholes: Any, tmp_path: Path, task: str, after: int, save_every: str) -> None:
    buffered = "rounds=buffered" in TASKS[task]
    if not buffered and save_every != "null":
        pytest.skip("synchronous rounds have no buffer to save")
    saving = f" rounds.save_every={save_every}" if buffered else ""
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "run", TASKS[task] + saving, after)
    assert_same(go(tmp_path / "run", TASKS[task] + saving), wholes(task))


def test_a_buffer_is_kept_and_nobody_in_it_is_asked_again(tmp_path: Path) -> None:
    overrides = f"{TASKS['median']} rounds.save_every=1"
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "run", overrides, 2)
    saved = load_checkpoint(checkpoint_files(tmp_path / "run" / "checkpoint")[0])
    assert saved.server_round == 0
    kept = saved.values["open_round"]["updates"]
    assert kept
    assert {name.split("/")[1] for name in saved.tensors if name.startswith("update/")} == {str(c) for c in kept}
    asked: list[int] = []

    def noted(reply: Any) -> Any:
        if reply.metadata.message_type == "train":
            asked.append(int(reply.content.config_records["config"]["clients"][0]))
        return reply

    run_in_process(tmp_path / "run", f"{overrides} run.output_dir={tmp_path}/run federation.num_rounds=1", tamper=noted)
    assert asked
    assert not set(asked) & set(kept)


@pytest.mark.slow
def test_killed_in_the_middle_of_a_buffer(wholes: Any, tmp_path: Path) -> None:
    overrides = f"{TASKS['adam on the server']} rounds.save_every=1"
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=interrupted, args=(tmp_path / "run", overrides, 8), kwargs={"kill": True})
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert_same(go(tmp_path / "run", overrides), wholes("adam on the server"))


def test_virtual_time_goes_on_with_the_timeout_that_it_began_with(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "run", TASKS["median"], 4)
    with pytest.raises(ConfigError, match=r"federation.round_timeout=4: was 3, and decides in virtual time"):
        go(tmp_path / "run", TASKS["median"].replace("round_timeout=3", "round_timeout=4"))


def test_a_replay_goes_on_as_a_replay(tmp_path: Path) -> None:
    """Its checkpoint does not say who is late in virtual time."""
    go(tmp_path / "first", TASKS["median"])
    replayed = f"{TASKS['median']} run.replay={tmp_path / 'first'}"
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "run", replayed, 4)
    with pytest.raises(ConfigError, match=r"run\.replay=null: this run replays another one"):
        go(tmp_path / "run", TASKS["median"])
