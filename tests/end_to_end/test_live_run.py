"""`run.live=true` of scripts/run.py: the page of a real run that waits, runs, is stopped, goes on, ends, and fails."""

import signal
from pathlib import Path

import pytest
from visitors import Visitor, address_in
from watched import ENDLESS, Watched, watched

pytestmark = pytest.mark.slow


def visited(run: Watched) -> Visitor:
    assert run.process.stdout is not None
    for line in run.process.stdout:
        if (address := address_in(line)) is not None:
            return Visitor(address)
    raise AssertionError("no page was announced")


def test_a_run_that_is_stopped_and_goes_on(tmp_path: Path) -> None:
    with watched(tmp_path, f"{ENDLESS} federation.num_clients=4 run.live=true run.name=ward") as run:
        visitor = visited(run)
        assert "<h1" in visitor.page
        visitor.wait_for(lambda state: (state["round"] or 0) >= 2)
        assert (visitor.state["name"], visitor.state["num_rounds"]) == ("ward", 100000)
        run.process.send_signal(signal.SIGINT)
        run.process.stdout.read()  # type: ignore[union-attr]
        assert run.process.wait(60) == 130
    visitor.until_gone()
    assert visitor.statuses in (["waiting", "running", "stopped"], ["running", "stopped"])
    done = visitor.state["round"]
    with watched(tmp_path, f"federation.num_rounds={done + 5} run.live=true", resume=True) as again:
        visitor = visited(again)
        again.process.stdout.read()  # type: ignore[union-attr]
        assert again.process.wait(60) == 0
    visitor.until_gone()
    assert visitor.statuses[-1] == "finished"
    assert "running" in visitor.statuses
    assert "failed" not in visitor.statuses
    assert (visitor.state["round"], visitor.state["reason"]) == (done + 5, "all rounds done")


def test_a_run_that_fails(tmp_path: Path) -> None:
    with watched(tmp_path, f"{ENDLESS} federation.num_clients=4 optimizer.lr=1e30 run.live=true") as run:
        visitor = visited(run)
        run.process.stdout.read()  # type: ignore[union-attr]
        assert run.process.wait(60) == 1
    visitor.until_gone()
    assert visitor.statuses[-1] == "failed"
    assert "rounds in a row had fewer than the 2 good replies" in visitor.state["reason"]
    assert visitor.state["num_rejected"] > 0
    assert {one["site"] for one in visitor.state["rejections"]} <= {"0", "1", "2", "3"}
