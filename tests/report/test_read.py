"""Reading a run directory: whole, torn, or not one at all."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from fedapp.common.errors import FedappError
from fedapp.report.read import number, read_run


def test_reads_every_file(sample: Path) -> None:
    run = read_run(sample)
    assert [line["round"] for line in run.rounds] == list(range(21))
    assert len(run.clients) == 20 * 10
    assert len(run.final) == 20
    assert run.config["task"]["name"] == "horizontal"
    assert run.summary["clients"] == 20


@pytest.mark.parametrize("name", ["metrics.jsonl", "clients.jsonl"])
@pytest.mark.parametrize("torn", [b'{"round": 4, "test_lo', b'{"round": 4, "rejected": "\xc3', b"{"])
def test_a_torn_last_line_is_skipped(run_at: Callable[..., Path], name: str, torn: bytes) -> None:
    path = run_at(rounds=3)
    whole = read_run(path)
    with (path / name).open("ab") as file:
        file.write(torn)
    assert read_run(path) == whole


def test_a_broken_line_elsewhere_is_named(run_at: Callable[..., Path]) -> None:
    path = run_at(rounds=2)
    lines = (path / "metrics.jsonl").read_text().splitlines()
    (path / "metrics.jsonl").write_text("\n".join([lines[0], "{oops", lines[1]]))
    with pytest.raises(FedappError, match=r"metrics\.jsonl: line 2 is not JSON"):
        read_run(path)


@pytest.mark.parametrize("line", ["[1]", "{}", '{"round": "1"}', '{"round": true}', '{"round": 1.5}'])
def test_a_line_without_a_round_is_named(run_at: Callable[..., Path], line: str) -> None:
    path = run_at(rounds=1)
    (path / "clients.jsonl").write_text(line + "\n")
    with pytest.raises(FedappError, match=r"clients\.jsonl: line 1 is not an object with a whole number"):
        read_run(path)


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl"])
def test_a_needed_file_that_is_missing_is_named(run_at: Callable[..., Path], name: str) -> None:
    path = run_at(rounds=1)
    (path / name).unlink()
    with pytest.raises(FedappError, match=f"{name}: missing"):
        read_run(path)


@pytest.mark.parametrize(("name", "text"), [("config.yaml", "a: ["), ("config.yaml", "- a"), ("summary.json", "{")])
def test_a_malformed_file_is_named(run_at: Callable[..., Path], name: str, text: str) -> None:
    path = run_at(rounds=1)
    (path / name).write_text(text)
    with pytest.raises(FedappError, match=name):
        read_run(path)


def test_a_killed_run_has_neither_summary_nor_clients(run_at: Callable[..., Path]) -> None:
    path = run_at(rounds=2)
    for name in ("summary.json", "clients.jsonl"):
        (path / name).unlink()
    run = read_run(path)
    assert (run.summary, run.clients, run.final) == ({}, (), ())


def test_of_a_round_done_twice_the_last_line_counts(run_at: Callable[..., Path]) -> None:
    path = run_at(rounds=2)
    with (path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"round": 1, "test_loss": 42.0}) + "\n")
    rounds = read_run(path).rounds
    assert [line["round"] for line in rounds] == [0, 1, 2]
    assert rounds[1]["test_loss"] == 42.0


@pytest.mark.parametrize("value", [None, "1", True, math.nan, math.inf, [1]])
def test_what_is_no_number(value: object) -> None:
    assert number(value) is None
