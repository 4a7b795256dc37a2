"""`scripts/deploy/run --live`: the operator's page of a run that waits for its sites, runs and finishes."""

from pathlib import Path

import pytest
from deployed import Deployed, command, wait_for
from visitors import Visitor, address_in

pytestmark = pytest.mark.slow

RUN = (
    "data=csv data.label=ill data.numeric=[age,dose] data.categorical={sex:[f,m]} data.classes=[no,yes]"
    " model=logistic_regression federation.fraction_train=1 federation.min_clients=2"
    " federation.min_supernodes=2 federation.wait_timeout=300 federation.num_rounds=5 run.seed=0 run.name=trial"
)


def write_table(path: Path) -> Path:
    rows = (f"{40 + i % 30},{i % 7}.5,{'fm'[i % 2]},{('no', 'yes')[i % 3 == 0]}" for i in range(60))
    path.write_text("\n".join(["age,dose,sex,ill", *rows]) + "\n")
    return path


def test_the_page_of_a_deployed_run(tmp_path: Path) -> None:
    federation = Deployed(tmp_path / "federation", "site-A", "site-B")
    try:
        federation.superlink()
        started = command("run", "--folder", str(federation.root / "operator"), "--live", *RUN.split())
        run = federation.start("run", *started, f"run.output_dir={tmp_path / 'run'}")
        run.wait_for("live page  http")
        visitor = Visitor(str(address_in(run.printed)))
        visitor.wait_for(lambda state: state["status"] == "waiting")
        for site in ("site-A", "site-B"):
            federation.supernode(site, "--data", str(write_table(tmp_path / f"{site}.csv")))
        wait_for(lambda: run.process.poll() is not None, lambda: run.printed)
        visitor.until_gone()
        assert run.process.returncode == 0, run.printed
    finally:
        federation.end(*list(federation.running))
    assert visitor.statuses == ["waiting", "running", "finished"]
    assert (visitor.state["name"], visitor.state["round"], visitor.state["num_sites"]) == ("trial", 5, 2)
    assert [site["taken"] for site in visitor.state["sites"]] == [5, 5]


def test_a_page_on_another_machine_is_refused(tmp_path: Path) -> None:
    federation = Deployed(tmp_path / "federation", "site-A")
    done = federation.run("--live", "--remote", "data=digits")
    assert done.code != 0
    assert "--live: shows the run directory" in done.output
