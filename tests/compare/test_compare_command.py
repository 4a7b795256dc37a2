"""scripts/compare.py as a person calls it, on sites that are odd in every way."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import PATIENCE, ROOT, run_script
from in_process import run_in_process

from fedapp.common.seeding import derive_seed
from fedapp.data.partition import holdout

pytestmark = pytest.mark.slow

SITES = ("big", "one", "ten", "tiny", "zero")  # one: only positives; zero: none
FORM = "data=csv data.label=y data.classes=[no,yes] data.numeric=[a,b] data.categorical={} data.test_fraction=0"
FORM += " data.missing=mean model=mlp model.hidden=[4] partition=iid"
WORK = "federation.num_rounds=2 federation.fraction_train=1.0 train.batch_size=16 task.metrics=[auc]"


def rows_of(site: str) -> list[str]:
    source = random.Random(site)
    count = {"big": 60, "one": 40, "ten": 10, "tiny": 1, "zero": 40}[site]
    rows = []
    for _ in range(count):
        a, b = source.gauss(0, 1), source.gauss(0, 1)
        label = "yes" if site == "one" or (site != "zero" and a + b + source.gauss(0, 1) > 0) else "no"
        rows.append(f"{a:.4f},{'' if site == 'ten' else f'{b:.4f}'},{label}")
    return rows


def write(path: Path, sites: tuple[str, ...]) -> Path:
    path.write_text("site,a,b,y\n" + "".join(f"{site},{row}\n" for site in sites for row in rows_of(site)))
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compare")


@pytest.fixture(scope="module")
def result(place: Path) -> dict[str, Any]:
    table = write(place / "all.csv", SITES)
    command = [sys.executable, str(ROOT / "scripts" / "compare.py"), *FORM.split(), *WORK.split()]
    command += [f"data.path={table}", "data.group=site", "partition=natural", "federation.num_clients=5"]
    command += ["--with", "federation.personal=finetune", "--seeds", "0", "--output", str(place / "out")]
    done = subprocess.run(
        command,
        cwd=place,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().splitlines()[-1] == f"compare_dir={place / 'out'}"
    found = json.loads((place / "out" / "comparison.json").read_text())
    return {**found, "printed": done.stdout}


def test_every_arm_was_judged_on_the_same_rows(result: dict[str, Any]) -> None:
    given = {site["name"]: site["examples_sha256"] for site in result["sites"]}
    assert [arm["name"] for arm in result["arms"]] == ["alone", "pooled", "federated", "personal=finetune"]
    for arm in result["arms"]:
        assert arm["held_out_sha256"] == {name: [digest] for name, digest in given.items()}, arm["name"]


def test_alone_is_the_model_of_a_run_on_that_sites_table(result: dict[str, Any], place: Path) -> None:
    """Of the first site with the same share held out, in the command itself; and of another one without a validation
    split, on the rows that it trains on."""
    alone = {run["directory"].rpartition("site-")[2]: run["model_sha256"] for run in result["arms"][0]["runs"]}
    table = write(place / "big.csv", ("big",))
    own = f"{FORM} {WORK} data.path={table} data.ignore=[site] federation.num_clients=1 federation.min_clients=1"
    ran = run_script(*own.split(), "train.val_fraction=0.3", cwd=place)
    assert ran.code == 0, ran.output
    assert ran.summary["model_sha256"] == alone["000"]
    kept, _ = holdout(10, 0.3, derive_seed(0, "validation", SITES.index("ten")))
    rows = rows_of("ten")
    ten = place / "ten.csv"
    ten.write_text("site,a,b,y\n" + "".join(f"ten,{rows[row]}\n" for row in kept.tolist()))
    other = run_in_process(place / "ten", own.replace(str(table), str(ten)) + " train.val_fraction=0")
    assert json.loads((other / "summary.json").read_text())["model_sha256"] == alone["002"]


def test_the_same_steps_in_all_arms(result: dict[str, Any]) -> None:
    steps = {arm["name"]: arm["steps"] for arm in result["arms"]}
    assert steps["alone"] == steps["federated"] == steps["personal=finetune"]
    assert steps["pooled"] == 2 * 7  # 42 + 28 + 7 + 1 + 28 rows in batches of 16
    assert "passes 2 times over each site's training rows" in result["same_work"]


def test_fine_tuning_starts_from_the_federated_model(result: dict[str, Any]) -> None:
    models = {arm["name"]: arm["runs"][0]["model_sha256"] for arm in result["arms"] if arm["owner"] == "federated"}
    assert models["federated"] == models["personal=finetune"]
    figures = result["figures"]
    assert figures["federated"]["big"]["value"] != figures["personal=finetune"]["big"]["value"]


def test_nothing_is_dropped_silently(result: dict[str, Any]) -> None:
    said = {site["name"]: "; ".join(site["remarks"]) for site in result["sites"]}
    assert "trains on one class only, 'yes'" in said["one"]
    assert "trains on one class only, 'no'" in said["zero"]
    assert "trains on 7 rows only" in said["ten"]
    assert "has no value of b" in said["ten"]
    assert "is not judged: too few rows" in said["tiny"]
    for arm in ("alone", "pooled", "federated", "personal=finetune"):
        assert "auc is not defined: no example of class 'no'" in "; ".join(result["figures"][arm]["one"]["said"])
        assert "auc is not defined: no example of class 'yes'" in "; ".join(result["figures"][arm]["zero"]["said"])
        assert all(result["figures"][arm][site]["others"]["accuracy"] is not None for site in ("one", "zero"))
        assert result["figures"][arm]["tiny"]["value"] is None
        assert result["figures"][arm]["tiny"]["said"]
    for site in ("one", "ten", "tiny", "zero"):
        assert f"note: {site}" in result["printed"]
    assert "cannot be judged" in result["verdict"]


def test_the_page_shows_what_the_file_says(result: dict[str, Any], place: Path) -> None:
    page = (place / "out" / "comparison.html").read_text()
    assert result["verdict"].split(" at ")[0] in page
    assert all(f'scope="row">{site}</th>' in page for site in SITES)
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert (place / "out" / "comparison.png").read_bytes().startswith(b"\x89PNG")
