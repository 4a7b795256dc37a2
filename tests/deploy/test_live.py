"""What an operator sees of a real federation: `scripts/deploy/run --live` and `scripts/deploy/status`."""

import json
import re
import time
from pathlib import Path

import httpx
import pytest
from deployed import Deployed, call, command, wait_for
from prometheus_format import parsed
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


def check_status(federation: Deployed, run: Path) -> None:
    """After a run of five rounds in which both sites took part."""
    asked = ("--folder", str(federation.root / "operator"), "--run-dir", str(run))
    done = call("status", *asked, "--json")
    assert done.code == 0, done.output
    said = json.loads(done.output)
    assert said["certificate_ends"] > time.time()
    assert [(site["name"], site["connected"], site["last_round"]) for site in said["sites"]] == [
        ("site-A", True, 5),
        ("site-B", True, 5),
    ]
    assert all(0 < time.time() - site["since"] < 3600 for site in said["sites"])
    served = federation.start("status", *command("status", *asked, "--prometheus", "0"))
    served.wait_for("/metrics")
    (address,) = re.findall(r"http://127\.0\.0\.1:\d+/metrics", served.printed)
    found = parsed(httpx.get(address, trust_env=False, timeout=60).text)
    assert found["fedapp_status"] == {(): 0.0}
    assert found["fedapp_site_last_round"] == {
        (("site", "site-A"), ("client", "0")): 5.0,
        (("site", "site-B"), ("client", "1")): 5.0,
    }


def test_a_deployed_run_is_watched(tmp_path: Path) -> None:
    federation = Deployed(tmp_path / "federation", "site-A", "site-B")
    try:
        federation.superlink()
        started = command("run", "--folder", str(federation.root / "operator"), "--live", *RUN.split())
        run = federation.start("run", *started, f"run.output_dir={tmp_path / 'run'}")
        run.wait_for("live page  http")
        visitor = Visitor(str(address_in(run.printed)))
        visitor.wait_for(lambda state: state["status"] == "waiting")
        nobody = call("status", "--folder", str(federation.root / "operator"))
        assert nobody.code == 2
        assert "critical: no site is connected" in nobody.output
        for site in ("site-A", "site-B"):
            federation.supernode(site, "--data", str(write_table(tmp_path / f"{site}.csv")))
        wait_for(lambda: run.process.poll() is not None, lambda: run.printed)
        visitor.until_gone()
        assert run.process.returncode == 0, run.printed
        check_status(federation, tmp_path / "run")
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
