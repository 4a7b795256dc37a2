"""The plots show the numbers of the files, and nothing where there are none."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedapp.report.canvas import COLORS
from fedapp.report.client_plots import final_by_client, participation_plot, spread_by_round
from fedapp.report.gallery import draw_plots
from fedapp.report.plots import bytes_by_round, loss_by_round, metric_by_round, privacy_by_round, seconds_by_round
from fedapp.report.read import RunData, read_run


def axes_of(figure: Figure | None) -> Axes:
    assert figure is not None
    return figure.axes[0]


def points(axes: Axes, label: str) -> dict[float, float]:
    line = next(line for line in axes.get_lines() if line.get_label() == label)
    return dict(zip(np.asarray(line.get_xdata()), np.asarray(line.get_ydata()), strict=True))


def column(run: RunData, key: str) -> dict[int, float]:
    return {line["round"]: line[key] for line in run.rounds if line.get(key) is not None}


def heights(axes: Axes) -> list[list[float]]:
    return [[bar.get_height() for bar in bars] for bars in axes.containers]


def ticks(axes: Axes) -> list[float]:
    low, high = axes.get_xlim()
    return [tick for tick in axes.get_xticks() if low <= tick <= high]


@pytest.mark.parametrize(("draw", "name"), [(metric_by_round, "accuracy"), (loss_by_round, "loss")])
def test_lines_are_the_metrics(sample: Path, draw: Callable[[RunData], Figure], name: str) -> None:
    run = read_run(sample)
    axes = axes_of(draw(run))
    assert points(axes, "test set of the server") == column(run, f"test_{name}")
    shown = points(axes, "clients' validation data")
    # Clients judge the model that a round begins with: the line of round r is about the model after round r - 1.
    assert {index: shown[index] for index in range(20)} == {
        index - 1: value for index, value in column(run, f"val_{name}").items()
    }
    examples = [line["val_examples"] for line in run.final]
    assert shown[20] == pytest.approx(np.average([line[f"val_{name}"] for line in run.final], weights=examples))
    if name == "loss":
        assert points(axes, "local training") == column(run, "train_loss")


def test_balanced_accuracy_joins_accuracy(run_at: Callable[..., Path]) -> None:
    path = run_at(rounds=2)
    lines = [{"round": index, "test_accuracy": 0.9, "test_balanced_accuracy": 0.5} for index in range(3)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    axes = axes_of(metric_by_round(read_run(path)))
    assert points(axes, "balanced") == {0: 0.5, 1: 0.5, 2: 0.5}


def test_missing_and_infinite_values_leave_gaps(run_at: Callable[..., Path]) -> None:
    path = run_at(rounds=2)
    (path / "metrics.jsonl").write_text(
        '{"round": 1, "test_loss": 2.5}\n{"round": 2, "test_loss": NaN}\n'
        '{"round": 3, "test_loss": Infinity}\n{"round": 4, "test_loss": null}\n{"round": 5, "test_loss": 1}\n'
    )
    assert points(axes_of(loss_by_round(read_run(path))), "test set of the server") == {1: 2.5, 5: 1.0}


def test_spread_is_over_the_clients_of_a_round(sample: Path) -> None:
    run = read_run(sample)
    axes = axes_of(spread_by_round(run))
    means, worst = points(axes, "mean"), points(axes, "worst tenth")
    assert {index: means[index] for index in range(20)} == {
        index - 1: value for index, value in column(run, "val_accuracy_mean").items()
    }
    assert means[20] == run.summary["final_val_accuracy_mean"]
    assert worst[20] == run.summary["final_val_accuracy_worst_decile"]
    band = next(band for band in axes.collections if band.get_label() == "all clients")
    edges = band.get_paths()[0].vertices
    assert isinstance(edges, np.ndarray)
    at_3 = [line["val_accuracy"] for line in run.clients if line["round"] == 4]
    shown = edges[edges[:, 0] == 3, 1]
    assert (shown.min(), shown.max()) == pytest.approx((min(at_3), max(at_3)))


def test_means_and_worst_tenth_follow_from_the_clients(run_at: Callable[..., Path]) -> None:
    path = run_at(rounds=1, clients=20, cohort=20, kind="regression")
    (path / "metrics.jsonl").write_text('{"round": 1, "test_loss": 1.0}\n')
    (path / "summary.json").unlink()
    run = read_run(path)
    axes = axes_of(spread_by_round(run))
    ranked = sorted((line["val_mae"] for line in run.final), reverse=True)
    assert points(axes, "mean")[1] == pytest.approx(np.mean(ranked))
    assert points(axes, "worst tenth")[1] == pytest.approx(np.mean(ranked[:2]))  # for an error the worst is the highest


def test_final_bars_are_sorted_and_labelled(sample: Path) -> None:
    run = read_run(sample)
    axes = axes_of(final_by_client(run))
    by_label = dict(zip([tick.get_text() for tick in axes.get_xticklabels()], heights(axes)[0], strict=True))
    assert by_label == {str(line["client"]): line["val_accuracy"] for line in run.final}
    assert list(by_label.values()) == sorted(by_label.values())


def test_many_clients_become_histograms(run_at: Callable[..., Path]) -> None:
    run = read_run(run_at(rounds=4, clients=150, cohort=30))
    assert sum(heights(axes_of(final_by_client(run)))[0]) == 150
    axes = axes_of(participation_plot(run))
    taken = Counter(line["client"] for line in run.clients if not line["rejected"])
    expected = [sum(taken[client] == count for client in range(150)) for count in range(max(taken.values()) + 1)]
    tops = [max(bar.get_y() + bar.get_height() for bar in bars) for bars in zip(*axes.containers, strict=True)]
    assert tops[: len(expected)] == expected


def test_heatmap_shows_who_took_part(sample: Path) -> None:
    run = read_run(sample)
    image = np.asarray(axes_of(participation_plot(run)).get_images()[0].get_array())
    assert image.shape == (20, 20, 4)  # (clients, rounds, RGBA)
    outcome = {(line["client"], line["round"]): bool(line["rejected"]) for line in run.clients}
    assert any(outcome.values())
    for client in range(20):
        for index in range(1, 21):
            color, asked = image[client, index - 1], outcome.get((client, index))
            if asked is None:
                assert color[3] < 0.2
            else:
                near = COLORS["vermillion" if asked else "blue"]
                assert np.abs(color[:3] - [int(near[i : i + 2], 16) / 255 for i in (1, 3, 5)]).max() < 0.01


def test_a_stranger_is_no_client(run_at: Callable[..., Path]) -> None:
    path = run_at(rounds=2)
    with (path / "clients.jsonl").open("a") as file:
        file.write('{"round": 2, "client": null, "rejected": "SuperNode 7: not asked"}\n')
    image = np.asarray(axes_of(participation_plot(read_run(path))).get_images()[0].get_array())
    assert image.shape[:2] == (20, 2)


def test_a_duplicate_does_not_hide_the_reply_that_counted(run_at: Callable[..., Path]) -> None:
    path = run_at(rounds=1, clients=3, cohort=3, reject=0)
    with (path / "clients.jsonl").open("a") as file:
        file.write('{"round": 1, "client": 1, "rejected": "second reply"}\n')
    image = np.asarray(axes_of(participation_plot(read_run(path))).get_images()[0].get_array())
    assert (image == image[0, 0]).all()


def test_bytes_add_up(sample: Path) -> None:
    run = read_run(sample)
    axes = axes_of(bytes_by_round(run))
    assert axes.get_ylabel().startswith("MiB")
    down, up = heights(axes)
    assert down[-1] * 2**20 == pytest.approx(run.summary["bytes_down"])
    assert up[-1] * 2**20 == pytest.approx(run.summary["bytes_up"])
    assert up[0] * 2**20 == pytest.approx(run.rounds[1]["bytes_up"])


def test_seconds_stack_to_the_round(sample: Path) -> None:
    run = read_run(sample)
    totals = np.sum(heights(axes_of(seconds_by_round(run))), axis=0)
    assert totals == pytest.approx([line["seconds"] for line in run.rounds[1:]])


def test_seconds_without_phases(run_at: Callable[..., Path]) -> None:
    path = run_at(rounds=2)
    (path / "metrics.jsonl").write_text('{"round": 1, "seconds": 2.5}\n{"round": 2, "seconds": 3}\n')
    assert heights(axes_of(seconds_by_round(read_run(path)))) == [[2.5, 3.0]]


def test_privacy_spent_never_falls(run_at: Callable[..., Path]) -> None:
    run = read_run(run_at(kind="dp"))
    axes = axes_of(privacy_by_round(run))
    most = points(axes, "most of any client")
    assert most[20] == run.summary["epsilon_max"]
    assert list(most.values()) == sorted(most.values())
    lines = [line for line in axes.get_lines() if line.get_color() == COLORS["muted"] and line.get_alpha() == 0.5]
    assert len(lines) == len({line["client"] for line in run.clients if "epsilon" in line})  # one for each client
    assert max(max(line.get_ydata()) for line in lines) == most[20]
    assert "budget" in axes.texts[0].get_text()


def names(run: RunData) -> list[str]:
    return [plot.name for plot in draw_plots(run)]


def test_what_has_no_data_is_left_out(run_at: Callable[..., Path]) -> None:
    usual = ["metric", "loss", "clients_by_round", "clients_final", "participation", "bytes", "seconds"]
    assert names(read_run(run_at("plain"))) == usual
    assert names(read_run(run_at("regression", kind="regression"))) == usual
    private = ["metric", "loss", "privacy", "participation", "bytes", "seconds"]
    assert names(read_run(run_at("dp", kind="dp"))) == private
    bare = run_at("bare")
    (bare / "metrics.jsonl").write_text("")
    (bare / "clients.jsonl").write_text("")
    assert names(read_run(bare)) == []


def test_regression_shows_its_own_metric(run_at: Callable[..., Path]) -> None:
    run = read_run(run_at(kind="regression"))
    axes = axes_of(metric_by_round(run))
    assert axes.get_ylabel() == "MAE"
    assert points(axes, "test set of the server") == column(run, "test_mae")


@pytest.mark.parametrize("rounds", [1, 2, 7, 300])
def test_round_ticks_are_whole_and_among_the_rounds(run_at: Callable[..., Path], rounds: int) -> None:
    run = read_run(run_at(rounds=rounds, clients=4, cohort=2))
    plots = {plot.name: plot.figure.axes[0] for plot in draw_plots(run)}
    for name in ("metric", "loss", "clients_by_round", "bytes", "seconds", "participation"):
        shown = ticks(plots[name])
        assert 1 <= len(shown) <= 12
        assert all(tick == int(tick) and 0 <= tick <= rounds for tick in shown), (name, shown)


@pytest.mark.slow
def test_nothing_touches_global_state(sample: Path) -> None:
    import matplotlib

    before: dict[str, Any] = dict(matplotlib.rcParams)
    draw_plots(read_run(sample))
    assert dict(matplotlib.rcParams) == before


def test_the_confusion_matrix_has_a_cell_for_each_pair_of_classes(run_at: Callable[..., Path]) -> None:
    directory = run_at()
    summary = json.loads((directory / "summary.json").read_text())
    assert "confusion" not in {plot.name for plot in draw_plots(read_run(directory))}
    summary |= {"confusion_matrix": [[8, 2], [0, 0]], "classes": ["$well$", "ill <b>"]}
    (directory / "summary.json").write_text(json.dumps(summary))
    (plot,) = (plot for plot in draw_plots(read_run(directory)) if plot.name == "confusion")
    axes = plot.figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["8", "2", "0", "0"]
    assert axes.images[0].get_array().tolist() == [[0.8, 0.2], [0.0, 0.0]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["?well?", "ill??b?"]
