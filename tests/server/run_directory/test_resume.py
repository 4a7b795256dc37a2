"""A run that is killed and resumed ends as one that was left alone, whenever it was killed."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from every_task import EVERY_TASK
from in_process import run_in_process

from fedapp.common.errors import ConfigError, FedappError, FederationError
from fedapp.config import compose
from fedapp.server import training_run
from fedapp.server.build import output_directory
from fedapp.server.run_directory import checkpoint as checkpoint_module
from fedapp.server.run_directory.checkpoint import checkpoint_files
from fedapp.server.run_directory.lock import only_writer
from fedapp.server.run_directory.resume import check_same_form

pytestmark = pytest.mark.slow

# Everything that has a state: Adam on the server, a schedule, patience, clients that fail and are left out.
BASE = (
    "strategy=fedadam lr_schedule@client_lr=cosine lr_schedule@server_lr=step server_lr.step_size=2"
    " federation.patience=50 federation.num_rounds=7 federation.num_clients=6 model=logistic_regression"
    " strategy.max_update_norm=1.1 federation.exclude_after=1 federation.exclude_rounds=2 run.resume=auto"
)
# What holds for one task must hold for the others: only a head that travels, adapters, and heads that never do.
OTHERS = {name: EVERY_TASK[name] for name in ("head", "lora", "personal heads", "next token")}
TASKS = {
    "horizontal": BASE,
    **{name: BASE.replace("model=logistic_regression", "").replace("norm=1.1", "norm=4") for name in OTHERS},
}
for name, overrides in OTHERS.items():
    TASKS[name] += f" {overrides} federation.fraction_train=0.5"
TIMING = ("seconds", "time")
CHECKPOINT_STEPS = ("fsync", "replace", "unlink")


def rows(directory: Path, name: str) -> list[dict[str, Any]]:
    """The lines of a history file without what depends on time."""
    lines = [json.loads(line) for line in (directory / name).read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith(TIMING)} for line in lines]


def summary(directory: Path) -> dict[str, Any]:
    found = json.loads((directory / "summary.json").read_text())
    return {key: value for key, value in found.items() if not key.startswith(TIMING)}


def go(directory: Path, overrides: str = BASE) -> Path:
    return run_in_process(directory, f"{overrides} run.output_dir={directory}")


def assert_same(directory: Path, whole: Path) -> None:
    assert summary(directory) == summary(whole)
    for name in ("metrics.jsonl", "clients.jsonl"):
        assert rows(directory, name) == rows(whole, name)


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Of each task, a run that was never interrupted."""

    @cache
    def whole_of(task: str) -> Path:
        directory = go(tmp_path_factory.mktemp("whole") / "run", TASKS[task])
        assert summary(directory)["rounds"] == 7
        return directory

    return whole_of


@pytest.fixture(scope="module")
def whole(wholes: Callable[[str], Path]) -> Path:
    directory = wholes("horizontal")
    assert summary(directory)["excluded"] > 0
    return directory


FORKSERVER = multiprocessing.get_context("forkserver")
# What a run imports on its way, so that a new process need not.
FORKSERVER.set_forkserver_preload(
    [
        "in_process",
        "torch._dynamo",
        "torchvision.models",
        "torch.utils.tensorboard",
        "sklearn.datasets",
        "flwr_datasets.partitioner",
    ]
)


@pytest.fixture(scope="module", autouse=True)
def forkserver() -> Iterator[None]:
    """The process that others are forked from finds these modules by the environment only (Python 3.11)."""
    with patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
        yield


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run_and_die(directory: Path, step: str, count: int, overrides: str = BASE) -> None:
    """A run that kills itself just before (`-step`) or just after the `count`-th call of a step of writing."""
    name, before = step.lstrip("-"), step.startswith("-")
    calls = 0
    real = {"fsync": os.fsync, "replace": os.replace, "unlink": Path.unlink}[name]

    def killing(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count and before:
            die()
        result = real(*arguments, **options)
        if calls == count:
            die()
        return result

    target = "pathlib.Path.unlink" if name == "unlink" else f"os.{name}"
    with patch(target, killing):
        go(directory, overrides)


def run_half_written(directory: Path, share: float) -> None:
    """Dies in round 3 while the checkpoint is being written, with a share of its bytes on the disk."""
    real = checkpoint_module.write_atomically

    def torn(path: Path, content: bytes) -> None:
        if path.name == "round-00003.safetensors":
            path.with_name(path.name + ".partial").write_bytes(content[: int(share * len(content))])
            die()
        real(path, content)

    with patch.object(checkpoint_module, "write_atomically", torn):
        go(directory)


def killed(target: Callable[..., None], *arguments: Any) -> None:
    """`target` in a process of its own, which must die by SIGKILL."""
    process = FORKSERVER.Process(target=target, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("step", "count"),
    [
        ("-fsync", 1),  # before the first checkpoint
        ("-fsync", 8),
        ("fsync", 11),
        ("-replace", 1),
        ("-replace", 4),
        ("replace", 4),
        ("-unlink", 2),
        ("unlink", 2),
        ("-replace", 9),  # the model is written, the summary is not
        ("replace", 9),
    ],
)
def test_killed_while_writing(whole: Path, tmp_path: Path, step: str, count: int) -> None:
    killed(run_and_die, tmp_path / "run", step, count)
    assert_same(go(tmp_path / "run"), whole)


@pytest.mark.parametrize(("step", "count"), [("-fsync", 8), ("replace", 5), ("-unlink", 2)])
@pytest.mark.parametrize("task", OTHERS)
def test_killed_while_writing_in_another_task(
    wholes: Callable[[str], Path], tmp_path: Path, task: str, step: str, count: int
) -> None:
    killed(run_and_die, tmp_path / "run", step, count, TASKS[task])
    assert_same(go(tmp_path / "run", TASKS[task]), wholes(task))


@pytest.mark.parametrize("share", [0.0, 0.4, 0.99])
def test_killed_with_half_a_checkpoint_on_the_disk(whole: Path, tmp_path: Path, share: float) -> None:
    killed(run_half_written, tmp_path / "run", share)
    assert_same(go(tmp_path / "run"), whole)


def test_killed_at_random_again_and_again(whole: Path, tmp_path: Path) -> None:
    """Every process is killed within half a second of its life, until one comes to the end."""
    moments = random.Random(int(time.time()))
    deaths = 0
    for _ in range(40):
        process = FORKSERVER.Process(target=go, args=(tmp_path / "run",))
        process.start()
        process.join(moments.uniform(0.05, 0.5))
        if process.exitcode is None:
            process.kill()
            process.join()
            deaths += 1
        elif (tmp_path / "run" / "summary.json").exists():
            break
    assert deaths
    assert_same(go(tmp_path / "run"), whole)


@pytest.mark.parametrize(
    ("task", "rounds"),
    [*(("horizontal", rounds) for rounds in range(1, 7)), *((task, rounds) for task in OTHERS for rounds in (2, 5))],
)
def test_interrupted_after_any_round(wholes: Callable[[str], Path], tmp_path: Path, task: str, rounds: int) -> None:
    """Between a round's lines in the history and its checkpoint, so that the round is done over."""
    printed = training_run.round_line
    left = rounds

    def interrupting(metrics: Any) -> str:
        nonlocal left
        left -= 1
        if not left:
            raise KeyboardInterrupt
        return printed(metrics)

    with pytest.raises(KeyboardInterrupt), patch.object(training_run, "round_line", interrupting):
        go(tmp_path / "run", TASKS[task])
    assert_same(go(tmp_path / "run", TASKS[task]), wholes(task))


# --- which checkpoint serves -------------------------------------------------------------------------------------


@pytest.fixture
def stopped(whole: Path, tmp_path: Path) -> Path:
    """A copy of the finished run: its last checkpoints are those of rounds 7 and 6."""
    shutil.copytree(whole, tmp_path / "copy")
    return tmp_path / "copy"


def tear(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-50] ^= 1
    file.write_bytes(content)


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(tear, "damaged, or no checkpoint"), (flip, "is damaged: its content"), (empty, "damaged, or no checkpoint")],
)
def test_auto_uses_the_checkpoint_before_a_damaged_one(
    whole: Path, stopped: Path, damage: Callable[[Path], None], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    damage(checkpoint_files(stopped / "checkpoint")[0])
    assert_same(go(stopped), whole)
    assert reason in caplog.text
    assert "going on from the one before it" in caplog.text


def test_a_path_is_taken_at_its_word(whole: Path, stopped: Path) -> None:
    newest, before = checkpoint_files(stopped / "checkpoint")
    tear(newest)
    lines = (stopped / "metrics.jsonl").read_bytes()
    with pytest.raises(FederationError, match=rf"(?s){newest.name}: is damaged.*one before it by run.resume=.*6"):
        run_in_process(stopped, BASE.replace("run.resume=auto", f"run.resume={stopped}"))
    assert (stopped / "metrics.jsonl").read_bytes() == lines
    run_in_process(stopped, BASE.replace("run.resume=auto", f"run.resume={before}"))
    assert_same(stopped, whole)


def test_when_all_are_damaged_nothing_is_lost(stopped: Path) -> None:
    for file in checkpoint_files(stopped / "checkpoint"):
        tear(file)
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    with pytest.raises(FederationError, match="needs another run"):
        go(stopped)
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before


def test_another_runs_checkpoint_is_refused(stopped: Path, tmp_path: Path) -> None:
    other = go(tmp_path / "other", f"{BASE} run.seed=5")
    shutil.rmtree(stopped / "checkpoint")
    shutil.copytree(other / "checkpoint", stopped / "checkpoint")
    with pytest.raises(FederationError, match="does not belong to this run"):
        go(stopped)


def test_what_is_no_checkpoint_is_refused(stopped: Path) -> None:
    shutil.copy(stopped / "model.safetensors", stopped / "checkpoint" / "round-00009.safetensors")
    with pytest.raises(FederationError, match="no checkpoint of fedapp"):
        run_in_process(stopped, BASE.replace("run.resume=auto", f"run.resume={stopped}"))


def test_a_run_without_checkpoints_is_not_begun_anew(stopped: Path) -> None:
    shutil.rmtree(stopped / "checkpoint")
    before = (stopped / "metrics.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="holds no checkpoint"):
        go(stopped)
    assert (stopped / "metrics.jsonl").read_bytes() == before


def test_only_the_last_two_are_kept(whole: Path) -> None:
    assert [file.name for file in checkpoint_files(whole / "checkpoint")] == [
        "round-00007.safetensors",
        "round-00006.safetensors",
    ]


def test_every_k_rounds_and_at_the_end(whole: Path, tmp_path: Path) -> None:
    directory = go(tmp_path / "run", f"{BASE} run.checkpoint_every=3")
    assert [file.name for file in checkpoint_files(directory / "checkpoint")] == [
        "round-00007.safetensors",
        "round-00006.safetensors",
    ]
    checkpoint_files(directory / "checkpoint")[0].unlink()
    (directory / "summary.json").unlink()
    assert_same(go(directory, f"{BASE} run.checkpoint_every=3"), whole)


# --- under which config ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "override",
    [
        "optimizer.lr=0.01",
        "run.seed=1",
        "strategy.weighting=sqrt",
        "federation.fraction_train=0.7",
        "strategy.server_optimizer.lr=0.5",
        "train.proximal_mu=0.1",
        "data.test_fraction=0.3",
        "server_lr.gamma=0.9",
        "federation.exclude_rounds=3",
    ],
)
def test_another_config_that_changes_the_maths_is_refused(stopped: Path, override: str) -> None:
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    key, _, value = override.partition("=")
    with pytest.raises(ConfigError, match=rf"{key}={value}: was ") as caught:
        go(stopped, f"{BASE} {override}")
    assert "started with, strategy=fedadam" in str(caught.value)
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before


def test_more_rounds_make_the_run_that_was_long_from_the_start(tmp_path: Path) -> None:
    short = BASE.replace("lr_schedule@client_lr=cosine", "").replace("num_rounds=7", "num_rounds=3")
    directory = go(tmp_path / "run", short)
    assert summary(directory)["rounds"] == 3
    longer = short.replace("num_rounds=3", "num_rounds=6")
    assert_same(go(directory, longer), go(tmp_path / "long", longer))


def test_a_schedule_over_all_rounds_forbids_more_of_them(stopped: Path) -> None:
    with pytest.raises(ConfigError, match=r"client_lr.T_max=9: was 7"):
        go(stopped, BASE.replace("num_rounds=7", "num_rounds=9"))


def test_fewer_rounds_than_done_are_refused(stopped: Path) -> None:
    with pytest.raises(ConfigError, match=r"federation.num_rounds=3: this run has done 7"):
        go(stopped, BASE.replace("num_rounds=7", "num_rounds=3") + " client_lr.T_max=7")


def test_a_finished_run_stays_as_it_is(whole: Path, stopped: Path) -> None:
    assert_same(go(stopped), whole)


def test_stop_rules_go_on_where_they_were(tmp_path: Path) -> None:
    still = "model=logistic_regression federation.num_clients=6 optimizer.lr=0 run.resume=auto federation.patience=4"
    directory = go(tmp_path / "run", f"{still} federation.num_rounds=3")
    assert summary(directory)["stop_reason"] == "all rounds done"
    go(directory, f"{still} federation.num_rounds=30")
    assert summary(directory)["rounds"] == 5
    assert "patience" in summary(directory)["stop_reason"]


def test_patience_on_another_metric_begins_anew(tmp_path: Path) -> None:
    still = "model=logistic_regression federation.num_clients=6 optimizer.lr=0 run.resume=auto federation.patience=4"
    directory = go(tmp_path / "run", f"{still} federation.num_rounds=3")
    go(directory, f"{still} federation.num_rounds=30 federation.patience_metric=accuracy")
    assert summary(directory)["rounds"] == 8
    assert summary(directory)["best_round"] == 4


def test_a_run_that_failed_can_go_on(tmp_path: Path) -> None:
    """Three rounds in vain end it; once the clients are back it goes on."""
    base = "model=logistic_regression federation.num_clients=6 federation.num_rounds=5 run.resume=auto"
    with pytest.raises(FederationError, match="3 rounds in a row"):
        run_in_process(
            tmp_path / "run",
            f"{base} federation.round_timeout=0.1",
            tamper=lambda reply: None if reply.metadata.message_type == "train" else reply,
        )
    assert summary(tmp_path / "run")["status"] == "failed"
    go(tmp_path / "run", base)
    assert (summary(tmp_path / "run")["status"], summary(tmp_path / "run")["rounds"]) == ("finished", 5)


@pytest.mark.parametrize(
    ("resume", "reason"),
    [("auto", "needs run.output_dir"), ("outputs/run", "absolute path")],
)
def test_where_to_go_on_must_be_clear(resume: str, reason: str) -> None:
    with pytest.raises(FedappError, match=reason):
        output_directory(compose([f"run.resume={resume}"]), Path("/nowhere"))


def test_a_run_goes_on_in_its_own_directory(tmp_path: Path) -> None:
    file = tmp_path / "run" / "checkpoint" / "round-00003.safetensors"
    assert output_directory(compose([f"run.resume={file}"]), Path("/nowhere")) == tmp_path / "run"
    with pytest.raises(ConfigError, match="its own directory"):
        output_directory(compose([f"run.resume={file}", "run.output_dir=/elsewhere"]), Path("/nowhere"))


# --- who writes --------------------------------------------------------------------------------------------------


def test_two_processes_never_write_one_run(stopped: Path) -> None:
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file() and path.name != ".lock"}
    with (
        only_writer(stopped),
        pytest.raises(FederationError, match=r"another process \(process \d+ on .+\) is writing"),
    ):
        go(stopped)
    assert before == {path: path.read_bytes() for path in before}
    go(stopped)


def test_leftover_checkpoints_are_not_mixed_with_a_new_run(stopped: Path) -> None:
    for name in ("metrics.jsonl", "clients.jsonl", "summary.json"):
        (stopped / name).unlink()
    with pytest.raises(ConfigError, match="already holds a run"):
        run_in_process(stopped, BASE.replace("run.resume=auto", ""))


def test_going_on_from_an_older_checkpoint_drops_the_newer_ones(whole: Path, stopped: Path) -> None:
    files = checkpoint_files(stopped / "checkpoint")
    shutil.copy(files[0], stopped / "checkpoint" / "round-00030.safetensors")
    shutil.copy(files[0], stopped / "checkpoint" / "round-00031.safetensors")
    run_in_process(stopped, BASE.replace("run.resume=auto", f"run.resume={files[1]}"))
    assert [file.name for file in checkpoint_files(stopped / "checkpoint")] == [file.name for file in files]
    assert_same(stopped, whole)


def test_the_summary_of_a_run_that_goes_on_is_taken_away(tmp_path: Path) -> None:
    base = "model=logistic_regression federation.num_clients=6 run.resume=auto"
    directory = go(tmp_path / "run", f"{base} federation.num_rounds=2")
    with (
        pytest.raises(KeyboardInterrupt),
        patch("fedapp.server.training_run.round_line", side_effect=KeyboardInterrupt),
    ):
        go(directory, f"{base} federation.num_rounds=4")
    assert not (directory / "summary.json").exists()
    assert summary(go(directory, f"{base} federation.num_rounds=4"))["rounds"] == 4


def test_a_model_of_another_form_is_named(stopped: Path) -> None:
    def other(found: Any, model: dict[str, Any]) -> None:
        check_same_form(found, model | {"net.1.weight": torch.zeros(3, 3)})

    with (
        patch("fedapp.server.run.check_same_form", other),
        pytest.raises(FederationError, match=r"model differs in net.1.weight"),
    ):
        go(stopped)


def test_a_lowered_target_is_reached_where_the_run_stands(tmp_path: Path) -> None:
    base = "model=logistic_regression federation.num_clients=6 run.resume=auto"
    directory = go(tmp_path / "run", f"{base} federation.num_rounds=2")
    found = summary(go(directory, f"{base} federation.num_rounds=9 federation.target_accuracy=0.01"))
    assert (found["rounds"], found["rounds_to_target"]) == (2, 2)
