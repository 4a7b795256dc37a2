"""What was reached over virtual time and bytes, and who was at work when, are those of the files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedapp.report.gallery import draw_plots
from fedapp.report.read import RunData, read_run
from fedapp.report.time_plots import MOST_JOBS, gantt, metric_by_bytes, metric_by_virtual_time


def with_speeds(path: Path) -> Path:
    """The same run, in virtual time: 1.5 s a round, and client c takes 0.2 c s more than one."""
    for name in ("metrics.jsonl", "clients.jsonl"):
        lines = [json.loads(line) for line in (path / name).read_text().splitlines()]
        for line in lines:
            number = line["round"]
            if name == "metrics.jsonl" and number:
                line |= {"virtual_seconds": 1.5 * number, "staleness_mean": 0.5}
            elif name == "clients.jsonl" and line.get("phase") != "final":
                asked = 1.5 * (number - 1)
                line |= {"asked_at": asked, "ended_at": asked + 1 + line["client"] / 5, "staleness": 0}
        (path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def run(run_at: Callable[..., Path]) -> RunData:
    return read_run(with_speeds(run_at(rounds=6, cohort=4)))


def curve(figure: Any) -> list[tuple[float, float]]:
    assert figure is not None
    (line,) = figure.axes[0].get_lines()
    return list(zip(np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist(), strict=True))


def test_accuracy_over_virtual_time(run: RunData) -> None:
    expected = [(line.get("virtual_seconds", 0.0), line["test_accuracy"]) for line in run.rounds]
    assert curve(metric_by_virtual_time(run)) == expected


def test_accuracy_over_bytes(run: RunData) -> None:
    found, total = curve(metric_by_bytes(run)), 0.0
    for (sent, accuracy), line in zip(found, run.rounds, strict=True):
        total += line.get("bytes_up", 0) + line.get("bytes_down", 0)
        assert sent == pytest.approx(total / 2**20)
        assert accuracy == line["test_accuracy"]


def test_a_bar_for_each_time_that_a_client_was_at_work(run: RunData) -> None:
    figure = gantt(run)
    assert figure is not None
    bars = []
    for collection in figure.axes[0].collections:
        for path in collection.get_paths():
            box = path.get_extents()
            bars.append((round(box.x0, 6), round(box.x1, 6), round((box.y0 + box.y1) / 2)))
    clients = sorted({line["client"] for line in run.clients})
    expected = [
        (round(line["asked_at"], 6), round(line["ended_at"], 6), clients.index(line["client"])) for line in run.clients
    ]
    assert sorted(bars) == sorted(expected)


def test_the_page_has_them_where_there_is_virtual_time_and_not_else(run: RunData, run_at: Callable[..., Path]) -> None:
    names = {"virtual_time", "metric_by_bytes", "gantt"}
    plots = draw_plots(run)
    assert names <= {plot.name for plot in plots}
    assert (len(plots) - sum(plot.wide for plot in plots)) % 2 == 0
    assert not names & {plot.name for plot in draw_plots(read_run(run_at("plain", rounds=3)))}


def test_a_long_run_has_no_more_bars_than_can_be_told_apart(run_at: Callable[..., Path]) -> None:
    run = read_run(with_speeds(run_at(rounds=70, clients=300, cohort=20)))
    figure = gantt(run)
    assert figure is not None
    assert 0 < sum(len(collection.get_paths()) for collection in figure.axes[0].collections) <= MOST_JOBS
