"""Trackers are told what metrics.jsonl and clients.jsonl hold: read back from MLflow's files and W&B's offline log."""

import json
import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from in_process import run_in_process

from fedapp.common.errors import ConfigError
from fedapp.config import compose
from fedapp.tracking.tracked_run import IDENTITY, TrackedRun, figures
from fedapp.tracking.tracker import AboutRun, tracker_of

RUN = "data=breast_cancer model=logistic_regression federation.num_clients=3 federation.num_rounds=2"
DP = f"{RUN} privacy=dp_sgd data.scaling=published"

Points = dict[str, dict[int, float]]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def expected(directory: Path) -> Points:
    """By name and round, the figures of metrics.jsonl."""
    found: Points = defaultdict(dict)
    for line in lines(directory / "metrics.jsonl"):
        for name, value in figures(line).items():
            found[name][line["round"]] = value
    return found


def only_rounds(points: Points) -> Points:
    return {name: values for name, values in points.items() if not name.startswith("site/")}


def mlflow_run(store: Path) -> Any:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=store.as_uri())
    experiment = client.get_experiment_by_name("fedapp")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    return client, run


def mlflow_points(store: Path) -> Points:
    client, run = mlflow_run(store)
    found: Points = {}
    for name in run.data.metrics:
        history = client.get_metric_history(run.info.run_id, name)
        found[name] = {point.step: point.value for point in history}
        assert len(found[name]) == len(history), f"{name}: a round was told twice"
    return found


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return tmp_path / "mlruns"


def test_mlflow_holds_what_the_run_directory_holds(tmp_path: Path, store: Path) -> None:
    own = f"tracker=mlflow tracker.uri={store.as_uri()} run.name=first run.tags=[ward,trial]"
    directory = run_in_process(tmp_path / "run", f"{RUN} {own}")
    points = mlflow_points(store)
    assert only_rounds(points) == expected(directory)
    rows = lines(directory / "clients.jsonl")
    row = next(row for row in rows if row["round"] == 1 and row.get("val_loss") is not None and "phase" not in row)
    assert points[f"site/{row['client']}/val_loss"][1] == row["val_loss"]
    final = next(row for row in rows if row.get("phase") == "final")
    assert points[f"site/{final['client']}/final_val_loss"][2] == final["val_loss"]
    client, run = mlflow_run(store)
    assert run.info.run_name == "first"
    assert run.info.status == "FINISHED"
    assert {"fedapp.tag.ward", "fedapp.tag.trial"} <= run.data.tags.keys()
    assert run.data.params["federation.num_rounds"] == "2"
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["warnings"] == []
    assert float(run.data.tags["summary.test_accuracy"]) == summary["test_accuracy"]
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"model.safetensors", "config.yaml", "summary.json", "report.html"} <= files


def test_a_resumed_run_is_the_same_run_of_mlflow(tmp_path: Path, store: Path) -> None:
    own = f"tracker=mlflow tracker.uri={store.as_uri()} tracker.artifacts=false"
    run_in_process(tmp_path / "run", f"{RUN} {own}")
    longer = f"{RUN} {own} federation.num_rounds=4 run.resume=auto run.output_dir={tmp_path / 'run'}"
    directory = run_in_process(tmp_path / "run", longer)
    assert only_rounds(mlflow_points(store)) == expected(directory)
    assert json.loads((directory / IDENTITY).read_text())["rounds"] == 4


def test_under_differential_privacy_clients_show_what_they_spent_alone(tmp_path: Path, store: Path) -> None:
    directory = run_in_process(tmp_path / "run", f"{DP} tracker=mlflow tracker.uri={store.as_uri()}")
    points = mlflow_points(store)
    names = {name.split("/")[2] for name in points if name.startswith("site/")}
    assert names == {"epsilon", "delta"}
    assert only_rounds(points) == expected(directory)
    client, run = mlflow_run(store)
    assert {file.path for file in client.list_artifacts(run.info.run_id)} <= {
        *("model.safetensors", "best.safetensors", "config.yaml")
    }


def test_a_run_goes_on_under_another_tracker(tmp_path: Path, store: Path) -> None:
    """Trackers, names and objectives change nothing of what is computed."""
    directory = tmp_path / "run"
    run_in_process(directory, RUN)
    more = f"tracker=mlflow tracker.uri={store.as_uri()} tracker.artifacts=false run.name=x run.objective=test_loss"
    run_in_process(directory, f"{RUN} federation.num_rounds=3 run.resume=auto run.output_dir={directory} {more}")
    assert sorted(only_rounds(mlflow_points(store))["seconds"]) == [3]


def test_wandb_offline_holds_what_the_run_directory_holds(tmp_path: Path) -> None:
    directory = run_in_process(tmp_path / "run", f"{RUN} tracker=wandb tracker.artifacts=false run.tags=[ward]")
    assert only_rounds(wandb_points(directory)) == expected(directory)
    assert json.loads((directory / "summary.json").read_text())["warnings"] == []
    longer = f"{RUN} tracker=wandb tracker.artifacts=false federation.num_rounds=3 run.resume=auto run.tags=[ward]"
    run_in_process(directory, f"{longer} run.output_dir={directory}")
    assert only_rounds(wandb_points(directory)) == expected(directory)
    assert len({file.stem for file in directory.glob("wandb/offline-run-*/*.wandb")}) == 1  # one id, twice


def log_records(content: bytes) -> Iterator[bytes]:
    """Records in LevelDB's log format, as W&B keeps them: blocks of 32 KiB, in them parts with a header of 7 bytes."""
    at, whole = 0, b""
    while at + 7 <= len(content):
        left = 32768 - (at + 7) % 32768  # the file's own header of 7 bytes is in the first block
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


def wandb_points(directory: Path) -> Points:
    """From the offline files, in the order in which they were written."""
    from wandb.proto import wandb_internal_pb2

    found: Points = defaultdict(dict)
    for file in sorted(directory.glob("wandb/offline-run-*/*.wandb")):
        for data in log_records(file.read_bytes()[7:]):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") != "history":
                continue
            for item in record.history.item:
                name = item.key or "/".join(item.nested_key)
                if not name.startswith("_"):
                    assert record.history.step.num not in found[name], f"{name}: a round was told twice"
                    found[name][record.history.step.num] = json.loads(item.value_json)
    return found


@pytest.mark.parametrize("when", ["open", "log", "finish"])
def test_a_tracker_that_fails_costs_one_warning(when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedapp.tracking import mlflow_tracker

    def fail(*_: object, **__: object) -> None:
        raise OSError("the store is away")

    class Store:
        identity = "1"
        log = finish = close = lambda *_, **__: None

    store = Store()
    if when == "open":
        monkeypatch.setattr(mlflow_tracker.MlflowTracker, "open", fail)
    else:
        monkeypatch.setattr(store, when, fail, raising=False)
        monkeypatch.setattr(mlflow_tracker.MlflowTracker, "open", lambda *_: store)
    directory = run_in_process(tmp_path / "run", f"{RUN} tracker=mlflow tracker.artifacts=false")
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["warnings"] == ["the tracker failed, and is told no more of this run: OSError: the store is away"]
    plain = run_in_process(tmp_path / "plain", RUN)
    assert json.loads((plain / "summary.json").read_text())["model_sha256"] == summary["model_sha256"]


def test_with_many_clients_none_has_figures_of_its_own(tmp_path: Path) -> None:
    tracker = tracker_of(compose(["tracker=mlflow", "tracker.sites=2"]))
    told: list[dict[str, float]] = []

    class Store:
        identity = "1"

        def log(self, values: dict[str, float], step: int) -> None:
            told.append(dict(values))

    for clients in (2, 3):
        run = TrackedRun(tracker, AboutRun(tmp_path, "name", (), {}, clients, private=False))
        run._store = Store()  # type: ignore[assignment]
        run.add_clients([{"round": 5, "client": 0, "val_loss": 0.5, "rejected": None}])
    assert told == [{"site/0/val_loss": 0.5}]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("tracker=mlflow tracker.uri=https://me:secret@host", "tracker.uri: holds a password"),
        ("tracker=mlflow tracker.experiment=' '", "tracker.experiment: is empty"),
        ("tracker=wandb tracker.mode=sometimes", "tracker.mode='sometimes': must be one of offline, online"),
        ("tracker=wandb tracker.sites=-1", "tracker.sites=-1: must be at least 0"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused(overrides: str, said: str) -> None:
    import shlex

    with pytest.raises(ConfigError, match=said) as found:
        tracker_of(compose(shlex.split(overrides)))
    assert "secret" not in str(found.value)


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"tracker=mlflow: needs the package mlflow; install it by `pip install -e"):
        tracker_of(compose(["tracker=mlflow"]))
