"""A deployment over a real network that is bad: each SuperNode is a host of its own, behind a slow link, or one that is
cut and mended. TLS, gateway and registered keys are as ever."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from commands import PATIENCE, ROOT
from deployed import Deployed, Running, command, wait_for

sys.path.insert(0, str(ROOT / "scripts"))  # before a package of that name which others bring

from benchmarks.networks import ADDRESS, Host, Network, why_not

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(why_not()), reason=f"no network of one's own: {why_not()}"),
]

SITES = ("site-A", "site-B", "site-C", "site-D")
SLOW, FAST = 512, 10_000  # kbit/s
# 120,000 parameters: 0.5 MB, which take 8 s over the slow link and half a second over the others.
RUN = (
    "data=digits model=mlp model.hidden=[512,160] partition=iid federation.num_clients=4 federation.min_supernodes=4"
    " federation.fraction_train=1 federation.min_clients=2 federation.final_evaluation=false"
)
BUFFERED = f"{RUN} rounds=buffered rounds.concurrency=4 rounds.buffer_size=2"


class Spread(Deployed):
    """A federation whose SuperLink and operator are on the server of `network`, and whose sites are hosts."""

    def __init__(self, root: Path, network: Network, hosts: dict[str, Host]) -> None:
        self.root, self.running, self.network, self.hosts = root, dict[str, Running](), network, hosts
        done = self.provision("--host", ADDRESS, "--site", *hosts, "--port", "8443", "--control-port", "8444")
        assert done.code == 0, done.output

    def superlink(self) -> Running:
        given = command("superlink", "--folder", str(self.root / "superlink"), "--host", "0.0.0.0")
        started = self.start("superlink", *self.network.at_server, *given)
        started.wait_for("SuperLink ready")
        return started

    def supernode(self, name: str, *arguments: str, folder: Path | None = None) -> Running:
        given = command("supernode", "--folder", str(folder or self.root / name), *arguments)
        return self.start(name, *self.hosts[name].inside, *given)

    def begin(self, directory: Path, overrides: str) -> Running:
        """A run, which the operator starts on the server's machine."""
        given = command("run", "--folder", str(self.root / "operator"), *overrides.split())
        return self.start("run", *self.network.at_server, *given, f"run.output_dir={directory}")


@contextmanager
def spread_out(place: Path, *, secure: bool = False) -> Iterator[Spread]:
    """Four sites, of which the last has a twentieth of the bandwidth. `secure`: they ask for secure aggregation."""
    with Network() as network:
        hosts = {site: network.add(site, SLOW if site == SITES[-1] else FAST) for site in SITES}
        spread = Spread(place / "federation", network, hosts)
        own = ["--min-cohort", "2", "--peers", str(spread.root / "superlink" / "keys")] if secure else []
        try:
            spread.superlink()
            for number, site in enumerate(SITES):
                spread.supernode(site, *own, "--node-config", f"partition-id={number}", "num-partitions=4")
            for site in SITES:
                spread.running[site].wait_for("SuperNode ID")
            yield spread
        finally:
            spread.end(*list(spread.running))


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spread]:
    with spread_out(tmp_path_factory.mktemp("network")) as spread:
        yield spread


def rows(directory: Path, name: str) -> list[dict[str, Any]]:
    path = directory / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def finished(run: Running, directory: Path) -> dict[str, Any]:
    assert run.process.wait(timeout=PATIENCE) == 0, run.printed
    return dict(json.loads((directory / "summary.json").read_text()))


def test_nobody_waits_for_the_slow_link_and_its_updates_are_used(federation: Spread, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    run = federation.begin(directory, f"{BUFFERED} federation.num_rounds=14")
    assert finished(run, directory)["rounds"] == 14
    clients = rows(directory, "clients.jsonl")
    assert [row for row in clients if row["rejected"]] == []
    took = {
        client: [row["ended_at"] - row["asked_at"] for row in clients if row["client"] == client] for client in range(4)
    }
    assert took[3]  # a slow upload is no broken one
    assert max(row["staleness"] for row in clients if row["client"] == 3) >= 2
    assert all(len(took[client]) > len(took[3]) for client in range(3))
    sent = federation.hosts[SITES[3]].sent()
    assert sent > 480_000 * len(took[3])  # bytes of its updates, over its own link


def test_a_site_that_is_cut_off_while_it_uploads_costs_the_others_no_round(federation: Spread, tmp_path: Path) -> None:
    directory, slow = tmp_path / "run", federation.hosts[SITES[3]]
    run = federation.begin(directory, f"{BUFFERED} federation.num_rounds=30 federation.round_timeout=45")
    wait_for(lambda: len(rows(directory, "metrics.jsonl")) > 2 or run.process.poll() is not None, lambda: run.printed)
    before = slow.sent()
    wait_for(lambda: slow.sent() > before + 100_000 or run.process.poll() is not None, lambda: run.printed)
    slow.cut()
    try:
        rounds = len(rows(directory, "metrics.jsonl"))
        end = time.monotonic() + 30
        while time.monotonic() < end and run.process.poll() is None:
            time.sleep(0.5)
        meanwhile = len(rows(directory, "metrics.jsonl")) - rounds
    finally:
        slow.mend()
    assert meanwhile >= 2  # the others went on
    assert finished(run, directory)["rounds"] == 30
    assert all(line["replied"] - line["unused"] == 2 for line in rows(directory, "metrics.jsonl")[1:])
    assert {row["rejected"] for row in rows(directory, "clients.jsonl") if row["client"] not in (3, None)} == {None}


def test_an_update_arrives_that_takes_longer_than_flower_gives_a_call(federation: Spread, tmp_path: Path) -> None:
    """One array of 2.1 MB, which takes 33 s over the slow link; Flower gives each of its pieces 30 s."""
    directory = tmp_path / "run"
    overrides = f"{RUN} model.hidden=[512,1024] train.val_fraction=0 federation.num_rounds=1"
    assert finished(federation.begin(directory, overrides), directory)["rounds"] == 1
    assert [row["rejected"] for row in rows(directory, "clients.jsonl")] == [None] * 4


def test_a_secure_sum_over_slow_links_is_the_sum(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    overrides = f"{RUN} secure_aggregation=secaggplus train.val_fraction=0 federation.num_rounds=1"
    with spread_out(tmp_path, secure=True) as federation:
        found = finished(federation.begin(directory, overrides), directory)
    assert found["status"] == "finished"
    metrics = rows(directory, "metrics.jsonl")
    assert metrics[1]["replied"] == 4
    assert metrics[1]["test_loss"] < metrics[0]["test_loss"]
