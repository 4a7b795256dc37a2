"""A run directory that is another run's, full, or not to be written: one message each."""

import errno
import threading
from pathlib import Path
from typing import Any

import pytest
from in_process import run_in_process
from secure_runs import lines, summary

from fedapp.common.errors import ConfigError, FederationError
from fedapp.launch.attend import _how_to_go_on
from fedapp.server.run_directory import history
from fedapp.server.run_directory.claim import claim
from fedapp.server.run_directory.lock import is_held, only_writer

RUN = "model=logistic_regression federation.num_clients=4 federation.num_rounds=4"


@pytest.mark.slow
def test_the_loser_is_told_who_holds_the_directory_and_not_to_resume(tmp_path: Path) -> None:
    run = run_in_process(tmp_path / "run", RUN)
    assert "run.resume=" in _how_to_go_on(run, "")
    assert "python x --resume " in _how_to_go_on(run, "python x")
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with only_writer(run):
            held.set()
            done.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    held.wait(60)
    try:
        assert is_held(run)
        with pytest.raises(
            FederationError, match=r"another process \(process \d+ on .+\) is writing .*directory of its own"
        ):
            run_in_process(run, f"{RUN} run.resume=auto run.output_dir={run} federation.num_rounds=5")
        with pytest.raises(FederationError, match=r"another process .*directory of its own"):  # nor anew
            run_in_process(run, RUN)
        assert _how_to_go_on(run, "python x") == ""
    finally:
        done.set()
        other.join()
    assert not is_held(run)
    assert not is_held(tmp_path)


def test_of_two_that_begin_at_once_the_second_finds_the_first_one_s_run(tmp_path: Path, monkeypatch: Any) -> None:
    """It had found the directory empty before it could hold it."""
    from fedapp.server import run as server_run

    calls = []

    def late(directory: Path, *, resume: bool = False, held: bool = False) -> None:
        calls.append(directory)
        if len(calls) == 1:
            directory.mkdir()
            (directory / "metrics.jsonl").write_text("{}\n")
            return
        claim(directory, resume=resume, held=held)

    monkeypatch.setattr(server_run, "claim", late)
    with pytest.raises(ConfigError, match="already holds a run"):
        run_in_process(tmp_path / "run", RUN)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == "{}\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOSPC, "make room"), (errno.EDQUOT, "make room"), (errno.EROFS, "let this user write")],
)
def test_a_disk_that_is_full_ends_the_run_with_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    plain = history.History.append

    def append(self: history.History, name: str, rows: Any) -> None:
        rows = list(rows)
        if any(row.get("round") == 3 for row in rows):
            raise OSError(number, "no more")
        plain(self, name, rows)

    monkeypatch.setattr(history.History, "append", append)
    with pytest.raises(
        FederationError, match=rf"{tmp_path}/run: cannot be written \(no more\); {remedy}.*, then go on"
    ):
        run_in_process(tmp_path / "run", f"{RUN} run.output_dir={tmp_path / 'run'}")
    monkeypatch.undo()
    run_in_process(tmp_path / "run", f"{RUN} run.output_dir={tmp_path / 'run'} run.resume=auto")
    assert summary(tmp_path / "run")["status"] == "finished"
    assert [line["round"] for line in lines(tmp_path / "run", "metrics.jsonl")] == [0, 1, 2, 3, 4]


def test_other_errors_of_the_system_are_not_taken_for_a_full_disk(tmp_path: Path, monkeypatch: Any) -> None:
    def append(*_: Any) -> None:
        raise OSError(errno.EBADF, "bad file")

    monkeypatch.setattr(history.History, "append", append)
    with pytest.raises(OSError, match="bad file"):
        run_in_process(tmp_path / "run", RUN)
