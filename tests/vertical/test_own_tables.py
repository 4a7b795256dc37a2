"""Parties with tables of their own: files of a simulation, and devices with their operators' settings."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from in_process import InProcessGrid
from own_keys import write_keys
from parties import run_on_grid, run_parties_in, summary_of

from fedapp.common.errors import ConfigError, DataError, FederationError
from fedapp.config import compose
from fedapp.data.sources.flights import Flights
from fedapp.data.sources.party_files import PartyFiles, parsed_keys
from fedapp.server.exchange import Exchange
from fedapp.server.vertical.join import JoinRules, meet
from fedapp.vertical.vertical_options import vertical_options

NAMES = ("bank", "phone", "shop")
LINE = "task=vertical data=party_files data.label_party=bank data.label=late data.classes=[n,y] data.key=person"
LINE += " data.keys={shop:[city,card]} federation.num_rounds=2 vertical.embedding=4 model.hidden=[5]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank's loans, several of one person; persons at the telephone company; cards at the shop, by city."""
    root, source = tmp_path_factory.mktemp("parties"), random.Random(0)
    persons = [f"Ä{i:03d}" for i in range(120)]
    habits = {person: source.gauss(0, 1) for person in persons}
    with (root / "bank.csv").open("w", newline="") as file:
        write = csv.writer(file).writerow
        write(["person", "city", "card", "amount", "late"])
        for _ in range(300):
            person = source.choice(persons)
            late = habits[person] + source.gauss(0, 0.3) > 0
            write([person, "Bern", f"c{person[1:]}", f"{source.random():.4f}", "y" if late else "n"])
    with (root / "phone.csv").open("w", newline="") as file:
        write = csv.writer(file).writerow
        write(["person", "calls", "plan"])
        for person in source.sample(persons[:110], 110):
            write([f" {person.lower()} ", f"{habits[person] + source.gauss(0, 0.2):.4f}", source.choice("ab")])
    with (root / "shop.csv").open("w", newline="") as file:
        write = csv.writer(file).writerow
        write(["city", "card", "spent"])
        for person in persons[5:]:
            write(["BERN", f"C{person[1:]}", "" if person == "Ä009" else f"{-habits[person]:.4f}"])
    return root


def with_files(folder: Path) -> str:
    return f"{LINE} data.parties={{{','.join(f'{name}:{folder}/{name}.csv' for name in NAMES)}}}"


@pytest.mark.slow
def test_a_party_of_random_columns_raises_no_auc(folder: Path, tmp_path: Path) -> None:
    """Beyond the 95 % interval of the AUC (Hanley & McNeil 1982) on the held-out loans."""
    random_columns = np.random.default_rng(0).standard_normal((120, 3))
    rows = [f"\u00c4{i:03d},{','.join(f'{value:.4f}' for value in row)}" for i, row in enumerate(random_columns)]
    (tmp_path / "noise.csv").write_text("\n".join(["person,a,b,c", *rows]) + "\n", encoding="utf-8")
    line = LINE.replace(" data.keys={shop:[city,card]}", "").replace("num_rounds=2", "num_rounds=8")
    line += " task.metrics=[auc] vertical.fusion.masked=false data.ignore=[city,card]"
    files = f"bank:{folder}/bank.csv,phone:{folder}/phone.csv"
    alone = summary_of(run_parties_in(tmp_path / "two", f"{line} data.parties={{{files}}}"))
    more = summary_of(run_parties_in(tmp_path / "three", f"{line} data.parties={{{files},noise:{tmp_path}/noise.csv}}"))
    assert alone["test_auc"] > 0.8
    assert alone["entities"] == more["entities"]
    positive = alone["entities"]["held_out"] // 2
    one, both = alone["test_auc"] / (2 - alone["test_auc"]), 2 * alone["test_auc"] ** 2 / (1 + alone["test_auc"])
    spread = alone["test_auc"] * (1 - alone["test_auc"])
    spread += (positive - 1) * (one + both - 2 * alone["test_auc"] ** 2)
    assert more["test_auc"] <= alone["test_auc"] + 1.96 * (spread / positive**2) ** 0.5


@pytest.mark.slow  # whole federations
def test_files_of_parties_match_by_their_own_keys(folder: Path, tmp_path: Path) -> None:
    found = summary_of(run_parties_in(tmp_path / "run", with_files(folder)))
    with (folder / "bank.csv").open(encoding="utf-8") as file:
        persons = {row["person"] for row in csv.DictReader(file)}
    assert found["parties"]["phone"]["matched"] == len({p for p in persons if int(p[1:]) < 110})
    assert found["parties"]["shop"]["matched"] == len({p for p in persons if int(p[1:]) >= 5})
    assert found["parties"]["phone"]["columns"] == 3
    assert found["entities"]["train"] + found["entities"]["held_out"] < 300
    zero = summary_of(run_parties_in(tmp_path / "zero", f"{with_files(folder)} vertical.unmatched=zero"))
    assert zero["entities"]["train"] + zero["entities"]["held_out"] == 300
    assert zero["test_accuracy"] > 0.7


def device_configs(folder: Path, root: Path) -> list[dict[str, Any]]:
    keys = write_keys(root / "own", len(NAMES))
    return [
        {
            "data-path": str(folder / f"{name}.csv"),
            "party": name,
            "partition-id": client,
            "keep-path": str(root / f"kept-{name}"),
            "signing-key": str(keys / f"device-{client}"),
            "peers": str(keys / "keys"),
        }
        for client, name in enumerate(NAMES)
    ]


@pytest.mark.slow  # whole federations
def test_devices_end_with_the_model_of_the_simulation(folder: Path, tmp_path: Path) -> None:
    simulated = summary_of(run_parties_in(tmp_path / "simulated", with_files(folder)))
    line = f"{LINE} data.parties={{bank:null,phone:null,shop:null}}"
    configs = device_configs(folder, tmp_path)
    directory = run_parties_in(tmp_path / "run", line, node_configs=configs)
    found = summary_of(directory)
    assert found["model_sha256"] == simulated["model_sha256"]
    assert found["delivered"] == 3
    assert not (directory / "parties").exists()
    for name in NAMES:
        (part,) = (tmp_path / f"kept-{name}" / "vertical").glob("*/part.safetensors")
        about = json.loads(part.with_suffix(".json").read_text())
        assert about["sha256"] == found["parties"][name]["part_sha256"]
        assert part.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("party", "change", "said"),
    [
        (1, {"peers": None}, "peers, signing-key"),
        (1, {"keep-path": None}, "keep-path"),
        (1, {"party": "bakery"}, "node-config"),
        (2, {"id-column": "spent"}, "data does not fit|same identity"),
        (0, {"max-identities": 10}, "max-identities"),
        (0, {"ledger-path": "/nowhere/ledger"}, "differential privacy"),
    ],
)
def test_what_an_operator_forbids_or_lacks_is_said(
    party: int, change: dict[str, Any], said: str, folder: Path, tmp_path: Path
) -> None:
    configs = device_configs(folder, tmp_path)
    configs[party] = {key: value for key, value in {**configs[party], **change}.items() if value is not None}
    line = f"{LINE} data.parties={{bank:null,phone:null,shop:null}} run.output_dir={tmp_path / 'run'}"
    line += " federation.wait_timeout=0.1"
    with pytest.raises(FederationError, match=said):
        run_on_grid(InProcessGrid(line, node_configs=configs), tmp_path / "run", line)
    assert not list(tmp_path.glob("kept-*/vertical"))


def test_a_device_whose_peers_do_not_know_a_party_sends_it_nothing(folder: Path, tmp_path: Path) -> None:
    """The server has put a party of its own in place of the shop: with a key that nobody has pinned."""
    configs = device_configs(folder, tmp_path)
    configs[2]["signing-key"] = str(write_keys(tmp_path / "stranger", 3) / "device-2")
    line = f"{LINE} data.parties={{bank:null,phone:null,shop:null}} run.output_dir={tmp_path / 'run'}"
    grid = InProcessGrid(line, node_configs=configs)
    with pytest.raises(FederationError, match="party shop: signed by another device"):
        run_on_grid(grid, tmp_path / "run", line)
    for message in grid.received:
        for name, record in message.content.items():
            if name in ("from/bank", "from/phone"):
                assert record["sealed"] == []


def test_a_server_cannot_have_a_device_read_another_file(folder: Path, tmp_path: Path) -> None:
    configs = device_configs(folder, tmp_path)
    line = with_files(folder).replace(" data.classes=[n,y]", "").replace(f"{folder}/bank.csv", "/etc/passwd")
    grid, options = InProcessGrid(line, node_configs=configs), vertical_options(compose(with_files(folder).split()))
    with pytest.raises(FederationError, match=r"SuperNode 100: data\.classes: must be set"):
        meet(Exchange(grid), JoinRules(options, "", 4, 32, 1, 5))


def test_id_columns_of_a_device() -> None:
    assert parsed_keys("", "bank", "bank") == {}
    assert parsed_keys("id", "shop", "bank") == {"": ("id",)}
    assert parsed_keys("origin+hour", "weather", "airline") == {"": ("origin", "hour")}
    assert parsed_keys("planes=tailnum,weather=origin+hour", "airline", "airline") == {
        "planes": ("tailnum",),
        "weather": ("origin", "hour"),
    }
    with pytest.raises(DataError, match="one key"):
        parsed_keys("planes=tailnum", "planes", "airline")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label_party": "bakery"}, "data.label_party=bakery"),
        ({"keys": {"bakery": "id"}}, "data.keys.bakery"),
        ({"parties": {"bank": "bank.csv", "shop": None}}, "absolute path"),
        ({"test_fraction": 0.0}, "data.test_fraction"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        PartyFiles(**{"parties": {"bank": None, "shop": None}, "label_party": "bank", "label": "late", **change})


def test_flights_know_nothing_from_after_departure(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    tables = {name: Flights(sample=60).table(name, "airline") for name in ("airline", "planes", "weather")}
    airline = tables["airline"]
    assert airline.targets is not None
    assert airline.held_out is not None
    assert not any(name.startswith(("arr_", "dep_", "air_")) for name in airline.features)
    assert 0.15 < airline.targets.float().mean() < 0.35
    assert 0.1 < airline.held_out.float().mean() < 0.4
    assert len(airline) == len(airline.key("planes")[0]) == len(airline.key("weather")[1])
    known = set(tables["planes"].key("airline")[0])
    share = sum(tail in known for tail in airline.key("planes")[0]) / len(airline)
    assert 0.8 < share < 0.9
    assert not torch.isinf(tables["weather"].inputs).any()
    planes = tables["planes"]
    assert planes.reading is not None
    with (tmp_path / "planes.csv").open("w", newline="") as file:
        rows = [["" if value != value else value for value in row] for row in planes.inputs[:5].tolist()]
        tails = planes.key("airline")[0]
        csv.writer(file).writerows([["tailnum", *planes.features], *([tails[at], *row] for at, row in enumerate(rows))])
    again, numbers = planes.reading.read(tmp_path / "planes.csv", "planes")
    assert torch.equal(again.inputs.nan_to_num(-1), planes.inputs[:5].nan_to_num(-1))
    assert list(again.key("airline")[0]) == list(tails[:5])
    assert numbers == [2, 3, 4, 5, 6]
