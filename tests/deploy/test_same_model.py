"""A deployed federation ends with the model of a simulation, bit for bit, whatever kind of run it is."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployed import Deployed
from every_task import EVERY_TASK
from in_process import run_in_process

pytestmark = pytest.mark.slow

SITES = ("site-A", "site-B", "site-C")
SIZES = (
    "federation.num_rounds=1 federation.num_clients=3 federation.fraction_train=1 federation.min_clients=3"
    " federation.min_supernodes=3 federation.final_evaluation=false run.seed=0"  # deployed runs draw one otherwise
)
KINDS = {  # plain runs: test_federation.py
    "transfer": EVERY_TASK["head"],
    "secure": f"{EVERY_TASK['horizontal']} secure_aggregation=secaggplus",
    "heads": f"{EVERY_TASK['personal heads']} partition=pathological",
    "robust": f"{EVERY_TASK['horizontal']} strategy=median",
    "next token": EVERY_TASK["next token"],
    "next token, secure": f"{EVERY_TASK['next token']} secure_aggregation=secaggplus",
}


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """Three sites, each with a third of a simulation's data."""
    deployed = Deployed(tmp_path_factory.mktemp("same") / "federation", *SITES)
    try:
        deployed.superlink()
        for number, site in enumerate(SITES):
            deployed.supernode(site, "--node-config", f"partition-id={number}", "num-partitions=3")
        for site in SITES:
            deployed.running[site].wait_for("SuperNode ID")
        yield deployed
    finally:
        deployed.end(*list(deployed.running))


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_that_of_a_simulation(kind: str, federation: Deployed, tmp_path: Path) -> None:
    overrides = f"{SIZES} {KINDS[kind]}"
    done = federation.run(*overrides.split(), f"run.output_dir={tmp_path / 'run'}")
    assert done.code == 0, done.output
    alone = run_in_process(tmp_path / "alone", overrides, num_nodes=3)
    deployed, simulated = (json.loads((place / "summary.json").read_text()) for place in (done.run_dir, alone))
    assert deployed["model_sha256"] == simulated["model_sha256"]
    assert (deployed["clients"], deployed["rejected"]) == (3, 0)
