"""Secure aggregation between real devices, of which some are killed in the middle of a round."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import PATIENCE
from deployed import Deployed, command, wait_for

pytestmark = pytest.mark.slow

SITES = ("site-A", "site-B", "site-C", "site-D", "site-E")
STAGES = ("keys", "shares", "masked", "consistency", "unmask")  # of the one round, each a train message
RUN = (
    "model=logistic_regression partition=iid federation.num_clients=5 federation.fraction_train=1"
    " federation.min_supernodes=5 federation.min_clients=2 federation.num_rounds=1 train.val_fraction=0"
    " secure_aggregation=secaggplus secure_aggregation.threshold=3 secure_aggregation.masked_timeout=60"
    " secure_aggregation.unmask_timeout=60"
)


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Deployed]:
    deployed = Deployed(tmp_path / "federation", *SITES)
    try:
        deployed.superlink()
        for number, site in enumerate(SITES):
            own = ["--min-cohort", "2", "--peers", str(deployed.root / "superlink" / "keys")]
            deployed.supernode(site, *own, "--node-config", f"partition-id={number}", "num-partitions=5")
        for site in SITES:
            deployed.running[site].wait_for("SuperNode ID")
        yield deployed
    finally:
        deployed.end(*list(deployed.running))


def kill_when_it_gets(federation: Deployed, site: str, stage: str) -> None:
    """`kill -9` for a SuperNode that has got a message and cannot have answered: what starts the process that answers
    is halted meanwhile."""
    running, number = federation.running[site], STAGES.index(stage) + 1
    wait_for(lambda: running.printed.count("Sending: train message") == number - 1, lambda: running.printed)
    launcher = running.child("flower-superexec")
    launcher.suspend()
    wait_for(lambda: running.printed.count("Receiving: train message") == number, lambda: running.printed)
    running.child("flower-supernode").kill()
    launcher.kill()
    running.wait_for("SuperNode ended")


def test_two_of_five_are_killed_and_the_round_is_finished(federation: Deployed, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    overrides = [*RUN.split(), f"run.output_dir={directory}"]
    run = federation.start("run", *command("run", "--folder", str(federation.root / "operator"), *overrides))
    kill_when_it_gets(federation, "site-A", "masked")  # it has shared its secrets
    kill_when_it_gets(federation, "site-B", "unmask")  # its vector is in the sum
    assert run.process.wait(timeout=PATIENCE) == 0, run.printed
    summary = json.loads((directory / "summary.json").read_text())
    assert (summary["status"], summary["rounds"]) == ("finished", 1)
    metrics = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert metrics[1]["replied"] == 4
    assert metrics[1]["test_loss"] < metrics[0]["test_loss"]
    rows: dict[int, dict[str, Any]] = {}
    for line in (directory / "clients.jsonl").read_text().splitlines():
        row = json.loads(line)
        rows[row["client"]] = row
    # Whichever comes first: the stage's timeout, or a SuperLink that has missed two heartbeats.
    gone = ("no reply in time (masked)", "bad reply (masked): error 5: ")
    assert rows[0]["rejected"].startswith(gone), rows[0]["rejected"]
    assert [rows[client]["rejected"] for client in (1, 2, 3, 4)] == [None] * 4
    printed = federation.running["site-B"].printed
    assert printed.count("Receiving: train message") == len(STAGES)
    assert printed.count("Sending: train message") == STAGES.index("unmask")  # no answer to it, yet its update counts
