"""Parties on devices of their own, by TLS and with pinned keys, end with the model of a simulation."""

import json
import random
from pathlib import Path

import pytest
from deployed import call
from in_process import run_in_process

pytestmark = pytest.mark.slow

PARTIES = ("bank", "phone", "shop")
# One batch an epoch, since each message takes seconds.
LINE = (
    "task=vertical data=party_files data.label_party=bank data.label=late data.classes=[n,y] data.key=person"
    " federation.num_rounds=1 train.batch_size=100 vertical.embedding=4 model.hidden=[5] run.seed=0"
)


def write_tables(root: Path) -> None:
    source = random.Random(0)
    persons = [f"p{i:03d}" for i in range(100)]
    values = {person: source.gauss(0, 1) for person in persons}
    late = [f"{p},{source.random():.4f},{'ny'[values[p] + source.gauss(0, 0.3) > 0]}" for p in persons]
    for name, header, rows in (
        ("bank", "person,amount,late", late),
        ("phone", "person,calls", [f"{p},{values[p] + source.gauss(0, 0.2):.4f}" for p in persons]),
        ("shop", "person,spent", [f"{p},{-values[p]:.4f}" for p in persons]),
    ):
        (root / f"{name}.csv").write_text("\n".join([header, *rows]) + "\n")


def test_three_parties_train_the_model_of_a_simulation(tmp_path: Path) -> None:
    root = tmp_path / "parties"
    root.mkdir()
    write_tables(root)
    parties = ",".join(f"{name}:null" for name in PARTIES)
    overrides = [*LINE.split(), f"data.parties={{{parties}}}", f"run.output_dir={tmp_path / 'run'}"]
    done = call("local", "--supernodes", "3", "--data-root", str(root), *overrides)
    assert done.code == 0, done.output
    files = ",".join(f"{name}:{root}/{name}.csv" for name in PARTIES)
    alone = run_in_process(tmp_path / "alone", f"{LINE} data.parties={{{files}}}", num_nodes=3)
    deployed, simulated = (json.loads((place / "summary.json").read_text()) for place in (tmp_path / "run", alone))
    assert deployed["model_sha256"] == simulated["model_sha256"]
    assert deployed["test_loss"] == simulated["test_loss"]
    assert [deployed["parties"][name]["matched"] for name in PARTIES] == [100, 100, 100]
