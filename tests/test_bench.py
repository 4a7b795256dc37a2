"""The benchmark runs, small, and its arms do the same work; how long they take is nobody's test."""

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest
from in_process import InProcessGrid, run_in_process

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parents[1] / "scripts"


def command(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [*sys.path])  # the script adds to it
    spec = importlib.util.spec_from_file_location("bench_script", SCRIPTS / "bench.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> list[dict[str, object]]:
    path = tmp_path / "figures.json"
    options = ["--repetitions", "1", "--steps", "2", "--json", str(path)]
    assert command(monkeypatch).main([name, *options]) == 0
    return list(json.loads(path.read_text())["rows"])


def test_dp_sgd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = figures(monkeypatch, tmp_path, "dp-sgd")
    assert {(row["model"], row["batch"]) for row in rows} == {(m, b) for m in ("2NN", "CNN") for b in (10, 64)}
    for row in rows:
        assert set(row["to_plain"]) == {"hooks", "functorch", "ew", "ghost"}  # type: ignore[call-overload]
        assert row["auto"] in ("ew", "ghost")
        assert set(row["to_opacus"]) == {"ew", "ghost"}  # type: ignore[call-overload]
        assert row["auto_to_best"] >= 1.0  # type: ignore[operator]


def test_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A plain run imports exactly what it imports where no feature's package is installed."""
    path = tmp_path / "figures.json"
    asked = ["start", "--repetitions", "1", "--asked", "tracker=mlflow", "--json", str(path)]
    assert command(monkeypatch).main(asked) == 0
    away, plain, mlflow = json.loads(path.read_text())["rows"]
    assert (away["packages"], plain["packages"]) == ([], [])
    assert "mlflow" in mlflow["packages"]
    assert away["modules"] == plain["modules"] < mlflow["modules"]
    assert 0 < plain["imported"] < plain["first_round"]


def test_compare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every arm has its row, and alone takes as many steps as federated."""
    path = tmp_path / "figures.json"
    assert command(monkeypatch).main(["compare", "--repetitions", "1", "--json", str(path)]) == 0
    rows = {row["arm"]: row for row in json.loads(path.read_text())["rows"]}
    assert rows.keys() == {"alone", "pooled", "federated", "all else"}
    assert rows["alone"]["steps"] == rows["federated"]["steps"] > 0
    assert rows["pooled"]["to_pooled"] == 1.0
    assert all(row["seconds"] > 0 for row in rows.values())


def test_client_dp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = figures(monkeypatch, tmp_path, "client-dp")
    assert [row["what"] for row in rows] == [
        "a whole round",
        "its updates, seen one by one",
        "a client of a secure round",
    ]
    for row in rows:
        assert row["ratio"] == pytest.approx(row["with"][0] / row["without"][0])  # type: ignore[index]
        assert min(row["with"] + row["without"]) > 0  # type: ignore[operator,type-var]


def test_client_dp_accuracy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Few arms and rounds; a row for each arm and difference, and a plot of its own."""
    bench = command(monkeypatch)
    measured = importlib.import_module("benchmarks.client_dp_accuracy")
    for name, few in (("BUDGETS", (8,)), ("NORMS", (0.5,)), ("ADAPTIVE", ((0.5, 0.1),))):
        monkeypatch.setattr(measured, name, few)
    json_file, plot = tmp_path / "figures.json", tmp_path / "plot.png"
    options = ["--quick", "--repetitions", "2", "--json", str(json_file), "--plot", str(plot)]
    assert bench.main(["client-dp-accuracy", *options]) == 0
    rows = {row["arm"]: row for row in json.loads(json_file.read_text())["rows"]}
    alike = rows["trusted server, sigma of distributed, ε = 8"]
    distributed = rows["distributed, 16 bits, ε = 8"]
    assert (
        alike["noise_multiplier"] == distributed["noise_multiplier"] > rows["trusted server, ε = 8"]["noise_multiplier"]
    )
    assert rows["without DP"]["noise_multiplier"] == 0
    between = rows["distributed less trusted server at its sigma, ε = 8"]
    apart = [one - other for one, other in zip(distributed["auc"], alike["auc"], strict=True)]
    assert between["difference"] == apart
    assert between["low"] < sum(apart) / 2 < between["high"]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_the_interval_of_paired_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    """Student's: of 1, 2, 3 it is 2 +- 4.303 / sqrt(3)."""
    command(monkeypatch)
    measured = importlib.import_module("benchmarks.client_dp_accuracy")
    assert measured.interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.30265 / 3**0.5, 2 + 4.30265 / 3**0.5), rel=1e-4)
    assert measured.interval([1.0]) == (float("-inf"), float("inf"))


def test_helper_sums(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every sum is checked; masks alone cost no bytes, and encryption what its arithmetic says."""
    path = tmp_path / "figures.json"
    assert command(monkeypatch).main(["helper-sums", "--parameters", "16384", "--json", str(path)]) == 0
    ratios = {row["protocol"]: row["bytes_ratio"] for row in json.loads(path.read_text())["rows"]}
    assert ratios["helper, 22 bits"] < 1.05
    assert ratios["bfv, 10 bits"] < 2.0
    assert ratios["bfv, 20 bits"] < 4.0


def test_secure_aggregation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every round checks its sum; what a client sends is within what the paper's protocol sends."""
    command(monkeypatch)
    from benchmarks import secure_aggregation

    monkeypatch.setattr(secure_aggregation, "COHORTS", ((None, 10), (4, 10), (32, 100)))
    path = tmp_path / "figures.json"
    assert command(monkeypatch).main(["secure-aggregation", "--parameters", "1000", "--json", str(path)]) == 0
    rows = json.loads(path.read_text())["rows"]
    assert [(row["cohort"], row["neighbours"]) for row in rows] == [(10, 9), (10, 4), (100, 32)]
    assert all(1 < row["bytes_ratio"] < 1.3 for row in rows)


def test_ledger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = figures(monkeypatch, tmp_path, "ledger")
    assert len({(row["model"], row["accountant"], row["where"]) for row in rows}) == 8
    assert all(0 < row["share"] < 1 for row in rows)  # type: ignore[operator]


def test_the_benchmarks_arms_train_the_same_model(monkeypatch: pytest.MonkeyPatch) -> None:
    command(monkeypatch)
    import torch
    from benchmarks.dp_sgd import MODES, private_training
    from benchmarks.models import MODELS, examples
    from benchmarks.opacus_clipping import OpacusTraining

    states = []
    for mode in (*MODES, "ew, Opacus's", "ghost, Opacus's"):
        model, training = MODELS["2NN"](), private_training(mode.split(",")[0], batch=10, steps=3)
        if mode in MODES:
            assert training(model, examples(30), seed=(0,)).steps == 3
        else:
            OpacusTraining(training)(model, examples(30), seed=(0,))
        states.append(model.state_dict())
    for state in states[1:]:
        assert all(torch.allclose(state[key], states[0][key], rtol=0, atol=1e-5) for key in state)


NONSENSE = [
    ["speed"],
    ["dp-sgd", "--steps", "0"],
    ["simulation", "--arms", "magic"],
    ["simulation", "--repetitions", "0"],
    ["scale", "--cohort", "0"],
    ["aggregation", "--parameters", "0"],
    ["ledger", "--json", "/no/such/folder/figures.json"],
]


@pytest.mark.parametrize("arguments", NONSENSE)
def test_nonsense_is_refused(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        command(monkeypatch).main(arguments)


def test_features(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = figures(monkeypatch, tmp_path, "features")
    assert [row["features"] for row in rows] == ["computed", "from a file", "from memory"]
    assert len({row["loss"] for row in rows}) == 1  # every arm trains on the same
    assert rows[0]["times_faster"] == 1.0


def stock_rounds(place: Path, work: Any, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The stock app's rounds, with Flower's own FedAvg, in this process."""
    client, server = (importlib.import_module(f"stock_app.{name}_app") for name in ("client", "server"))
    settings = {"place": str(place), "net": "2nn", "num-server-rounds": work.rounds, "fraction-train": 1.0}
    settings |= {"fraction-evaluate": 0.0, "local-epochs": 1, "learning-rate": 0.05, "batch-size": 10}
    grid = InProcessGrid("", work.clients, app=client.app)
    for context in grid.contexts.values():
        context.run_config.clear()
        context.run_config.update(settings)
    server.main(grid, SimpleNamespace(run_config=settings))
    return list(importlib.import_module("benchmarks.arms").stock_lines(place, work))


def test_every_arm_of_the_simulation_does_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Steps, and losses of rounds that begin with the same model; only the order of examples differs."""
    command(monkeypatch)
    import torch
    from benchmarks import arms, ideal, simulation
    from benchmarks.work import Work, read_trace

    # In the middle of what would make the arms differ were it forgotten: several rounds, a learning rate that shows.
    work = Work("2nn", 4, 3, 1, 4, 60)
    work.write(tmp_path)
    settings = json.loads((tmp_path / "work.json").read_text())
    assert settings["cohorts"] == [[0, 1, 2, 3]] * 3
    run_in_process(tmp_path / "run", " ".join(work.overrides))
    trainer = ideal.Trainer(tmp_path, settings)
    state = torch.cat([value.reshape(-1) for value in trainer.initial(tmp_path)])
    plain = []
    for cohort in settings["cohorts"]:
        total, loss, steps = trainer(state, cohort)
        state = total / len(cohort)
        plain.append({"time": 0.0, "loss": loss / len(cohort), "steps": steps})
    traces = {
        "ideal": [read_trace(0.0, plain)],
        "fedapp": [arms.fedapp_trace(0.0, tmp_path / "run")],
        "stock": [read_trace(0.0, stock_rounds(tmp_path, work, monkeypatch))],
    }
    simulation.check(work, traces, tolerance=0.03)
    assert traces["fedapp"][0].steps == (24, 24, 24)
    losses = traces["fedapp"][0].losses
    assert losses[2] < losses[1] - 0.03 < losses[0] - 0.06  # so the tolerance tells rounds apart
    for arm, changes in (("stock", {"steps": 23}), ("ideal", {"loss": 9.9})):
        wrong = [{"time": 0.0, "loss": losses[i], "steps": 24, **(changes if i == 1 else {})} for i in range(3)]
        with pytest.raises(arms.ArmError, match=arm):
            simulation.check(work, {**traces, arm: [read_trace(0.0, wrong)]}, tolerance=0.03)


def test_pfl_does_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("pfl")
    command(monkeypatch)
    from benchmarks import arms, simulation
    from benchmarks.work import Work, read_trace

    work = Work("2nn", 4, 2, 1, 4, 60)
    work.write(tmp_path)
    run_in_process(tmp_path / "run", " ".join(work.overrides))
    with arms.workplace() as home:
        found = arms.pfl(work, tmp_path, home)
    assert found.to_first_round > 0
    traces = {"fedapp": [arms.fedapp_trace(0.0, tmp_path / "run")], "pfl": [found]}
    simulation.check(work, traces, tolerance=0.03)
    assert len(read_trace(0.0, arms.lines_of(tmp_path / "pfl.jsonl")).ends) == 2


def test_both_arms_of_the_aggregation_find_the_same_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    command(monkeypatch)
    import numpy as np
    from benchmarks import aggregation

    for cohort in (3, 40):
        monkeypatch.setattr(aggregation, "LARGEST_PULL", 8 * 1000 * 5)  # five different updates in turn
        (_, ours), (_, flowers) = aggregation.ours(cohort, 1000), aggregation.flower(cohort, 1000)
        assert ours.keys() == flowers.keys()
        for key, value in ours.items():
            assert np.abs(value).max() > 0.1
            np.testing.assert_allclose(value, flowers[key], rtol=0, atol=1e-6)


def test_aggregation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path, plot = tmp_path / "figures.json", tmp_path / "figures.png"
    options = ["--cohort", "3", "--parameters", "1000", "--repetitions", "1", "--json", str(path), "--plot", str(plot)]
    assert command(monkeypatch).main(["aggregation", *options]) == 0
    rows = json.loads(path.read_text())["rows"]
    assert [row["arm"] for row in rows] == ["fedapp", "flower"]
    assert all(row["gigabytes_a_second"] > 0 and row["peak_bytes"] > 0 for row in rows)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_memory_is_booked_by_role(monkeypatch: pytest.MonkeyPatch) -> None:
    command(monkeypatch)
    import os
    import time

    from benchmarks.memory import MemoryWatch

    program = "import time; held = bytearray(b'x' * (64 << 20)); print('ready', flush=True); time.sleep(60)"
    with MemoryWatch() as memory:
        memory(os.getpid())
        line = [sys.executable, "-c", program, "flwr-simulation"]
        with subprocess.Popen(line, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            deadline = time.monotonic() + 30
            while memory.peak["server"] < 64 << 20 and time.monotonic() < deadline:
                time.sleep(0.05)
            process.kill()
    assert 64 << 20 <= memory.peak["server"] < 256 << 20
    assert memory.peak["workers"] == 0


def test_memory_of_the_local_engine_is_booked_by_the_names_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    command(monkeypatch)
    import time

    from benchmarks.memory import MemoryWatch

    worker = "import ctypes, time; ctypes.CDLL(None).prctl(15, b'fedapp-worker'); held = bytearray(b'x' * (64 << 20))"
    worker += "; time.sleep(60)"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])"
    with MemoryWatch() as memory, subprocess.Popen([sys.executable, "-c", program]) as process:
        memory(process.pid)
        deadline = time.monotonic() + 30
        while memory.peak["workers"] < 64 << 20 and time.monotonic() < deadline:
            time.sleep(0.05)
        for child in psutil.Process(process.pid).children():
            child.kill()
    assert 64 << 20 <= memory.peak["workers"] < 256 << 20
    assert 1 << 20 <= memory.peak["server"] < 64 << 20


def test_a_command_is_told_by_what_it_takes_beyond_its_rounds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With calls that are made up: 5 s to start, 1.5 s a run beyond its rounds, 0.1 s a round."""
    program = command(monkeypatch)
    from benchmarks import command as benchmark

    def made_up(place: Path, home: Path, *arguments: str) -> tuple[float, float]:
        seeds = next((argument for argument in arguments if argument.startswith("run.seed=")), "0")
        rounds = 10 if "federation.num_rounds=10" in arguments else 60
        runs = seeds.count(",") + 1
        return 5.0 + runs * (1.5 + 0.1 * rounds), runs * 0.1 * rounds

    monkeypatch.setattr(benchmark, "timed", made_up)
    options = ["--engines", "local", "--repetitions", "1", "--json", str(tmp_path / "f.json"), "--markdown"]
    assert program.main(["command", *options]) == 0
    (row,) = json.loads((tmp_path / "f.json").read_text())["rows"]
    assert (row["command"], row["rounds"]) == (12.5, 6.0)
    assert abs(row["further"] - 1.5) < 1e-9
    shown = capsys.readouterr().out
    assert "| each further run of a sweep, seconds beyond its rounds | <= 0.5 | 1.50 |" in shown
    assert "| the default run, command to last line / its rounds | <= 2.0 | 2.08 |" in shown


def test_a_workplace_ends_what_was_started_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    command(monkeypatch)
    from benchmarks.arms import environment, workplace

    with workplace() as home:
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env=environment(home))
    process.wait(20)  # raises where it goes on
    assert not home.exists()


def test_a_command_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command(monkeypatch)
    from benchmarks.arms import ArmError
    from benchmarks.arms import command as run_command

    with pytest.raises(ArmError, match="no such luck"):
        run_command([sys.executable, "-c", "raise SystemExit('no such luck')"], tmp_path, tmp_path / "log")


def test_ratios_are_told_from_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    command(monkeypatch)
    from benchmarks.bars import bars

    seconds = {"ideal": 1.0, "fedapp": 1.2, "stock": 3.0, "pfl": 1.8}
    simulation = [
        {"model": "cnn", "cohort": 10, "arm": arm, "rounds": [value], "first": [10 * value]}
        for arm, value in seconds.items()
    ]
    scale = [
        {
            "clients": clients,
            "cohort": cohort,
            "rounds": [each * cohort],
            "peak_bytes": {"server": memory, "workers": 7},
        }
        for clients, cohort, each, memory in ((100, 100, 0.2, 5), (10_000, 100, 0.22, 5), (10_000, 10, 0.2, 100))
    ]
    scale.append({"clients": 10_000, "cohort": 1000, "rounds": [1.0], "peak_bytes": {"server": 105, "workers": 7}})
    rates = {"fedapp": 2.0, "flower": 2.5}
    aggregation = [{"cohort": 10, "arm": arm, "gigabytes_a_second": rate} for arm, rate in rates.items()]
    deployment = [{"arm": "stock", "to_stock": 1.0}, {"arm": "fedapp, warm", "to_stock": 0.1}]
    calls = [{"engine": "local", "command": 12.0, "rounds": 6.0, "further": 0.4}, {"engine": "flower"}]
    rows = {"simulation": simulation, "command": calls, "scale": scale}
    rows |= {"aggregation": aggregation, "deployment": deployment}
    found = bars(rows).rows
    expected = ["1.20", "2.50", "2.50", "1.50", "0.67", "2.00", "0.40", "1.05", "1.00", "1.10", "0.80", "0.10"]
    assert [row[2] for row in found] == expected
    assert not bars({"ledger": []}).rows


def test_all_asks_for_five_benchmarks_with_files_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command(monkeypatch)
    from benchmarks.options import ALL, parse

    asked = [options for _, options in parse("", ["all", "--quick", "--json", str(tmp_path / "figures.json")])]
    assert [options.benchmark for options in asked] == list(ALL)
    assert {options.json for options in asked} == {tmp_path / f"figures-{name}.json" for name in ALL}
    assert all(options.quick and options.repetitions == 1 for options in asked)


def test_the_command_runs_from_anywhere(tmp_path: Path) -> None:
    """Small; what is started is ended."""
    line = [sys.executable, str(SCRIPTS / "bench.py"), "simulation", "--quick", "--model", "2nn", "--cohort", "10"]
    line += ["--arms", "ideal", "fedapp", "--json", "figures.json"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert [row["arm"] for row in rows] == ["ideal", "fedapp"]
    for row in rows[1:]:
        assert row["steps"] == [[100, 100, 100]]
        assert row["to_ideal"] > 0
        assert row["first"][0] > 0


def test_deployment_compares_with_the_stock_app(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With runs that are made up; the real ones take minutes."""
    program = command(monkeypatch)
    from benchmarks import deployment
    from benchmarks.work import Trace, Work

    def made_up(seconds: float) -> Any:
        def arm(work: Work, place: Path, home: Path, cold: bool = False) -> Trace:
            assert (place / "data.safetensors").exists()
            each = seconds * (5 if cold else 1)
            return Trace(0.0, (20.0, 20.0 + each, 20.0 + 2 * each), (2.0, 1.9, 1.8), (20, 20, 20))

        return arm

    monkeypatch.setattr(deployment, "stock", made_up(30.0))
    monkeypatch.setattr(deployment, "fedapp", made_up(2.0))
    path = tmp_path / "figures.json"
    assert program.main(["deployment", "--quick", "--markdown", "--json", str(path)]) == 0
    rows = json.loads(path.read_text())["rows"]
    assert [(row["arm"], round(row["to_stock"], 4)) for row in rows] == [
        ("stock", 1.0),
        ("fedapp, cold", 0.3333),
        ("fedapp, warm", 0.0667),
    ]
    assert "| round on devices, fedapp, warm / stock Flower | <= 0.2 | 0.07 |" in capsys.readouterr().out


def test_scale_shows_every_size(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With runs that are made up."""
    program = command(monkeypatch)
    from benchmarks import scale
    from benchmarks.work import Trace, Work

    def made_up(work: Work, place: Path, home: Path, watch: Any) -> Trace:
        (place / "run").mkdir()
        (place / "run" / "metrics.jsonl").write_text('{"bytes_up": 1000000, "bytes_down": 500000}\n')
        watch.peak["server"] = work.cohort << 20
        return Trace(0.0, (5.0, 5.0 + 0.01 * work.cohort), (2.0, 1.9), (2 * work.cohort,) * 2)

    monkeypatch.setattr(scale, "run_fedapp", made_up)
    options = [
        "--clients",
        "100",
        "10000",
        "--cohort",
        "10",
        "1000",
        "--rounds",
        "2",
        "--json",
        str(tmp_path / "f.json"),
    ]
    assert program.main(["scale", "--markdown", *options]) == 0
    rows = json.loads((tmp_path / "f.json").read_text())["rows"]
    assert [(row["clients"], row["cohort"]) for row in rows] == [(100, 10), (10_000, 10), (10_000, 1000)]
    shown = capsys.readouterr().out
    assert "| 10,000 | 1,000 | 10.000 (10.000-10.000) | 10.00 | 1000 | 0 | 1.5 |" in shown
    assert "| server's peak memory, cohort 1,000 / cohort 10: 10,000 clients | <= 1.1 | 100.00 |" in shown


def test_language(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Both arms of a round take as many steps; every arm of DP-SGD has its ratio to the one without."""
    bench = command(monkeypatch)
    measured = importlib.import_module("benchmarks.language")
    small = ("data.vocabulary_size=300", "model.embedding=4", "model.hidden=6", "data.min_words=3000")
    small += ("data.test_clients=2", "federation.num_clients=40", "federation.fraction_train=0.05")
    monkeypatch.setattr(measured, "BARE", (*measured.BARE, *small))
    path = tmp_path / "figures.json"
    assert bench.main(["language", "--quick", "--json", str(path)]) == 0
    rows = json.loads(path.read_text())["rows"]
    assert [row["arm"] for row in rows[:3]] == ["plain loop", "fedapp", "DPLSTM without DP"]
    assert rows[0]["steps"] == rows[1]["steps"] > 0
    assert rows[0]["to_plain"] == rows[2]["to_plain"] == 1.0
    assert {row["arm"].partition(",")[0] for row in rows[2:]} == {"DPLSTM without DP", "LSTM without DP", "DP-SGD"}
