"""Checkpoints are written aside: as things were when it was asked for, one at a time, and no failure is lost."""

import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message
from in_process import InProcessGrid, run_on

from fedapp.server.run_directory import checkpoint_writer
from fedapp.server.run_directory.checkpoint import Checkpoint, checkpoint_files, load_checkpoint
from fedapp.server.run_directory.checkpoint_writer import CheckpointWriter


def checkpoint(server_round: int, values: dict[str, Any], momentum: torch.Tensor) -> Checkpoint:
    optimizer = {"state": {0: {"momentum_buffer": momentum}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    return Checkpoint(server_round, {"w": torch.full((3,), float(server_round))}, optimizer, values, {"a": 1})


def test_what_changes_afterwards_is_not_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let_go, save = threading.Event(), checkpoint_writer.save_checkpoint

    def slowly(directory: Path, saved: Checkpoint) -> Path:
        assert let_go.wait(30)
        return save(directory, saved)

    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", slowly)
    writer, values, momentum = CheckpointWriter(tmp_path), {"totals": {"bytes": 1}}, torch.ones(3)
    writer.write(checkpoint(1, values, momentum))
    assert not checkpoint_files(tmp_path)  # nobody has waited for it
    values["totals"]["bytes"] = 2
    momentum += 1
    let_go.set()
    writer.finish()
    saved = load_checkpoint(tmp_path / "round-00001.safetensors")
    assert saved.values == {"totals": {"bytes": 1}}
    assert torch.equal(saved.optimizer["state"][0]["momentum_buffer"], torch.ones(3))


def test_the_last_one_is_on_the_disk_at_the_end(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path)
    for number in range(5):
        writer.write(checkpoint(number, {}, torch.ones(3)))
    writer.finish()
    assert [path.name for path in checkpoint_files(tmp_path)] == ["round-00004.safetensors", "round-00003.safetensors"]


def test_a_failure_comes_with_the_next_one_and_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    writer = CheckpointWriter(tmp_path / "file" / "checkpoint")
    writer.write(checkpoint(0, {}, torch.ones(3)))
    with pytest.raises(OSError, match="Not a directory"):
        writer.write(checkpoint(1, {}, torch.ones(3)))
    writer.finish()


def test_a_failure_is_told_before_the_next_one_is_due(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    writer = CheckpointWriter(tmp_path / "file" / "checkpoint")
    writer.check()
    writer.write(checkpoint(0, {}, torch.ones(3)))
    while not writer._pending.done():  # type: ignore[union-attr]
        time.sleep(0.01)
    with pytest.raises(OSError, match="Not a directory"):
        writer.check()  # as a round does when it begins


class Watching(InProcessGrid):
    """Notes which checkpoints there are when messages go out."""

    def __init__(self, overrides: str, checkpoints: Path) -> None:
        super().__init__(overrides)
        self.checkpoints, self.seen = checkpoints, list[tuple[str, list[str]]]()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        there = sorted(path.name for path in self.checkpoints.glob("round-*.safetensors"))
        self.seen += [(message.metadata.message_type, there) for message in messages]
        return super().push_messages(messages)


@pytest.mark.slow  # a whole federation
def test_there_is_one_before_round_1_and_the_last_one_before_clients_store_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = checkpoint_writer.save_checkpoint

    def slowly(directory: Path, saved: Checkpoint) -> Path:
        time.sleep(0.3)
        return save(directory, saved)

    monkeypatch.setattr(checkpoint_writer, "save_checkpoint", slowly)
    overrides = "model=logistic_regression federation.num_clients=4 federation.num_rounds=2"
    grid = Watching(overrides, tmp_path / "run" / "checkpoint")
    run_on(grid, tmp_path / "run", overrides)
    first = next(there for kind, there in grid.seen if kind == "train")
    last = next(there for kind, there in grid.seen if kind == "evaluate")
    assert first == ["round-00000.safetensors"]
    assert "round-00002.safetensors" in last
