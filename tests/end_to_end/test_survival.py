"""Real Flower processes: ClientApps with every fault, and a ServerApp that is killed and resumed."""

import json
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import PATIENCE, ROOT, Flower, copy_of_this_checkout, run_script
from in_process import run_in_process

pytestmark = pytest.mark.slow

# By SuperNode, each of which hosts one client. The last two block or kill the worker process that they run in.
FAULTS = {
    3: "exception",
    4: "NaN",
    5: "infinity",
    6: "wrong shape",
    7: "wrong dtype",
    8: "missing key",
    9: "huge norm",
    10: "claims 10^12 examples",
    11: "sleeps",
    12: "is killed",
}
REASONS = {
    3: "bad reply: error",
    4: "non-finite",
    5: "non-finite",
    6: "wrong shape",
    7: "wrong dtype",
    8: "wrong keys",
    9: "update norm",
    11: "no reply in time",
    12: "bad reply: error",  # on the local engine: no reply, since its worker process has ended
}
CLIENT = """
from fedapp.faults import faulty
from fedapp.client_app import app as sound

FAULTS = {faults}
app = faulty(sound, lambda context: FAULTS.get(int(context.node_config["partition-id"])))
"""


def rows(directory: Path, name: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (directory / name).read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith(("seconds", "time"))} for line in lines]


def summary(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "summary.json").read_text()))


@pytest.mark.parametrize("engine", ["local", "flower"])
def test_faults_in_real_client_apps(engine: str, flower: Flower, tmp_path: Path) -> None:
    app = copy_of_this_checkout(tmp_path / "app")
    (app / "fedapp" / "faulty_client.py").write_text(CLIENT.format(faults=FAULTS))
    shutil.copy(ROOT / "tests" / "faults.py", app / "fedapp" / "faults.py")
    project = app / "pyproject.toml"
    project.write_text(project.read_text().replace("fedapp.client_app:app", "fedapp.faulty_client:app"))
    overrides = (
        f"federation.num_clients=13 federation.num_rounds=2 federation.fraction_train=1 partition=iid"
        f" model=logistic_regression strategy.max_update_norm=20 federation.round_timeout=30"
        f" federation.final_evaluation=false run.output_dir={tmp_path / 'run'}"
    )
    if engine == "local":
        worker = app / "fedapp" / "launch" / "local" / "worker.py"
        worker.write_text(worker.read_text().replace("fedapp.client_app import", "fedapp.faulty_client import"))
        done = run_script(*overrides.split(), "run.num_supernodes=13", cwd=tmp_path, root=app)
        assert done.code == 0, done.output
    else:
        output, status = flower.run(overrides, supernodes=13, app=app)
        assert status == "finished:completed", output
    found = summary(tmp_path / "run")
    assert (found["status"], found["rounds"], found["clients"]) == ("finished", 2, 13)
    first = {row["client"]: row for row in rows(tmp_path / "run", "clients.jsonl") if row["round"] == 1}
    for client in range(13):
        reason = first[client]["rejected"]
        assert (reason is None) if client not in REASONS else (REASONS[client] in reason), (client, reason)


def test_a_server_killed_and_resumed_on_another_engine_ends_with_the_same_model(flower: Flower, tmp_path: Path) -> None:
    """`kill -9` for the process in which the ServerApp and the SuperNodes run, in the middle of the rounds."""
    overrides = "model=logistic_regression federation.num_rounds=7 federation.fraction_train=1 run.resume=auto"
    # In process: bit for bit what Flower's processes compute, as test_same_model.py holds.
    whole = run_in_process(tmp_path / "whole", overrides, num_nodes=1)
    directory = tmp_path / "run"
    killed: list[int] = []
    home = str(flower.superlink.home)
    (superlink,) = [child for child in psutil.Process().children() if child.cwd() == home]

    def kill_after_round_4() -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            metrics = directory / "metrics.jsonl"
            if metrics.exists() and metrics.read_text().count("\n") > 4:
                for process in superlink.children(recursive=True):
                    with suppress(psutil.NoSuchProcess):
                        if "flwr-simulation" in " ".join(process.cmdline()):
                            process.kill()
                            killed.append(process.pid)
                return
            time.sleep(0.005)

    killer = threading.Thread(target=kill_after_round_4)
    killer.start()
    _, status = flower.run(f"{overrides} run.output_dir={directory}")
    killer.join()
    assert killed
    assert status != "finished:completed"
    assert not (directory / "summary.json").exists()
    resumed = run_script(*overrides.split(), f"run.output_dir={directory}", "run.num_supernodes=1", cwd=tmp_path)
    assert resumed.code == 0, resumed.output
    assert resumed.run_dir == directory
    assert "going on after round" in (directory / "flwr.log").read_text()
    assert summary(directory)["model_sha256"] == summary(whole)["model_sha256"]
    for name in ("metrics.jsonl", "clients.jsonl"):
        assert rows(directory, name) == rows(whole, name)
