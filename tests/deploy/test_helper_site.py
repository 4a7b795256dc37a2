"""Three sites and a helper as real processes: a site is killed in a round, and the server never has the model."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from commands import PATIENCE
from deployed import Deployed, command, family, program, wait_for
from flwr.app import RecordDict
from safetensors.torch import load_file

from fedapp.aggregation.helper.run_store import RunStore
from fedapp.aggregation.helper.sealed_model import open_sealed_model

pytestmark = pytest.mark.slow

SITES = ("site-A", "site-B", "site-C")
ROUNDS = 3
RUN = (
    "data=csv data.label=ill data.numeric=[age,dose] data.categorical={} data.classes=[no,yes] data.scaling=none"
    " model=mlp model.hidden=[64] federation.num_clients=3 federation.fraction_train=1 federation.min_supernodes=3"
    f" federation.min_clients=2 federation.num_rounds={ROUNDS} federation.round_timeout=90 federation.deliver=true"
    " secure_aggregation=helper secure_aggregation.sum_to=clients run.seed=3"
)


def write_table(path: Path, seed: int) -> Path:
    random = np.random.default_rng(seed)
    rows = ["age,dose,ill"]
    for _ in range(120):
        age, dose = random.normal(), random.normal()
        rows.append(f"{age:.3f},{dose:.3f},{'yes' if age + dose + random.normal(0, 0.3) > 0 else 'no'}")
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Deployed]:
    deployed = Deployed(tmp_path / "federation", *SITES, "notary")
    try:
        deployed.superlink()
        keys = deployed.root / "superlink" / "keys"
        deployed.supernode("notary", "--role", "helper", "--peers", str(keys), "--min-cohort", "2")
        for number, site in enumerate(SITES):
            data = write_table(tmp_path / f"{site}.csv", number)
            pinned = ["--helper", str(keys / "notary.pub"), "--min-cohort", "2"]
            deployed.supernode(site, "--data", str(data), *pinned)
        for site in (*SITES, "notary"):
            deployed.running[site].wait_for("SuperNode ID")
        yield deployed
    finally:
        deployed.end(*list(deployed.running))


def lines(path: Path) -> list[dict]:  # type: ignore[type-arg]
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def held(process: psutil.Process, markers: dict[str, bytes]) -> set[str]:
    """Which markers are anywhere in the memory that a process can write to."""
    found: set[str] = set()
    longest = max(map(len, markers.values()))
    with open(f"/proc/{process.pid}/maps") as maps, open(f"/proc/{process.pid}/mem", "rb", 0) as memory:
        for line in maps:
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if match is None:
                continue
            start, end = (int(part, 16) for part in match.groups())
            tail = b""
            for place in range(start, end, 1 << 24):
                try:
                    memory.seek(place)
                    content = tail + memory.read(min(1 << 24, end - place))
                except (OSError, ValueError):  # a region of the machine's, or gone
                    break
                found |= {name for name, marker in markers.items() if marker in content}
                tail = content[-longest:]
    return found


def windows(model: dict, name: str) -> bytes:  # type: ignore[type-arg]
    """Sixteen bytes of a tensor's values, which nothing but this model has."""
    return bytes(model[name].numpy().tobytes()[64:80])


def test_a_site_is_killed_and_the_server_never_has_the_model(federation: Deployed, tmp_path: Path) -> None:
    directory, keep = tmp_path / "run", federation.root / "notary" / "keep" / "helper"
    overrides = [*RUN.split(), f"run.output_dir={directory}"]
    run = federation.start("run", *command("run", "--folder", str(federation.root / "operator"), *overrides))
    running = federation.running["site-C"]
    wait_for(lambda: running.printed.count("Receiving: train message") == 2, lambda: running.printed)
    running.child("flower-supernode").kill()
    wait_for(lambda: len(lines(directory / "metrics.jsonl")) == ROUNDS + 1, lambda: run.printed)
    (server,) = [
        process
        for process in family(psutil.Process(federation.running["superlink"].process.pid))
        if "flwr-serverapp" in program(process)
    ]
    (file,) = keep.glob("run-*.sealed")
    kept = RunStore(keep).load(file.name[4:20], RecordDict())
    assert kept is not None
    model = open_sealed_model(kept.sealed, kept.key)
    names = [name for name, value in model.items() if value.is_floating_point() and value.numel() >= 64]
    markers = {name: windows(model, name) for name in names} | {"key": kept.key, "key in hex": kept.key.hex().encode()}
    control = {"sealed": kept.sealed["sealed-model"].numpy().tobytes()[:64]}
    seen = held(server, markers | control)
    assert seen == {"sealed"}  # what it passes on is there, so what it cannot read would be found
    assert run.process.wait(timeout=PATIENCE) == 0, run.printed
    assert len(names) >= 2
    for path in (p for p in directory.rglob("*") if p.is_file()):
        content = path.read_bytes()
        assert not [name for name, marker in markers.items() if marker in content], path
    assert not (directory / "model.safetensors").exists()
    summary = json.loads((directory / "summary.json").read_text())
    assert (summary["status"], summary["rounds"], summary["model_sha256"]) == ("finished", ROUNDS, kept.model)
    metrics = lines(directory / "metrics.jsonl")
    assert [line["replied"] for line in metrics[1:]][:2] == [3, 2]
    assert metrics[-1]["val_accuracy"] > metrics[1]["val_accuracy"]
    stored = load_file(federation.root / "site-A" / "keep" / "models" / "latest" / "model.safetensors")
    assert all(np.array_equal(stored[name].numpy(), value.numpy()) for name, value in model.items())
