"""Parties on devices predict new rows together by the parts that they have kept: the label party alone has the
predictions, and they are those of the same parts in one place."""

import csv
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from in_process import InProcessGrid
from own_keys import write_keys
from parties import run_on_grid, run_parties_in, summary_of
from saved_runs import load_script

from fedapp.common.errors import ConfigError, FederationError
from fedapp.config import compose
from fedapp.server.summary import show
from fedapp.vertical.vertical_options import vertical_options

NAMES = ("bank", "phone", "shop")
LINE = (
    "task=vertical data=party_files data.parties={bank:null,phone:null,shop:null} data.label_party=bank data.label=late"
    " data.classes=[n,y] data.key=person federation.num_rounds=2 vertical.embedding=4 model.hidden=[5]"
)


def write_tables(folder: Path, persons: range, *, labels: bool, seed: int) -> None:
    draw = random.Random(seed)
    folder.mkdir()
    rows: dict[str, list[str]] = {"bank": [], "phone": [], "shop": []}
    for person in persons:
        habit = draw.gauss(0, 1)
        rows["bank"].append(f"p{person},{draw.random():.4f}" + (f",{'ny'[habit > 0]}" if labels else ""))
        rows["phone"].append(f"P{person} ,{habit + draw.gauss(0, 0.2):.4f},{draw.choice('ab')}")
        rows["shop"].append(f"p{person},{-habit:.4f}")
    draw.shuffle(rows["phone"])
    if not labels:
        rows["shop"] = rows["shop"][2:]  # the shop does not know two of them
    headers = {"bank": "person,amount" + ",late" * labels, "phone": "person,calls,plan", "shop": "person,spent"}
    for name, lines in rows.items():
        (folder / f"{name}.csv").write_text("\n".join([headers[name], *lines]) + "\n")


@pytest.fixture(scope="module", params=["drop", "zero"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("trained")
    write_tables(root / "old", range(150), labels=True, seed=0)
    write_tables(root / "new", range(200, 230), labels=False, seed=1)
    keys = write_keys(root / "own", 3)
    configs: list[dict[str, Any]] = [
        {
            "data-path": str(root / "old" / f"{name}.csv"),
            "party": name,
            "partition-id": client,
            "keep-path": str(root / f"kept-{name}"),
            "signing-key": str(keys / f"device-{client}"),
            "peers": str(keys / "keys"),
            "predict-path": str(root / "new" / f"{name}.csv"),
        }
        for client, name in enumerate(NAMES)
    ]
    line = f"{LINE} vertical.unmatched={request.param}"
    run = summary_of(run_parties_in(root / "run", line, node_configs=configs))["run"]
    return {"root": root, "configs": configs, "line": line, "run": run, "unmatched": request.param}


def predict(trained: dict[str, Any], directory: Path, more: str = "", configs: Any = None) -> InProcessGrid:
    line = f"{trained['line']} vertical.predict={trained['run']} federation.wait_timeout=0.1 {more}"
    line += f" run.output_dir={directory}"
    grid = InProcessGrid(line, node_configs=configs or trained["configs"])
    run_on_grid(grid, directory, line)
    return grid


def kept_predictions(trained: dict[str, Any]) -> dict[str, list[Path]]:
    root = trained["root"]
    return {name: sorted((root / f"kept-{name}").rglob("predictions-*.csv")) for name in NAMES}


def test_the_label_party_alone_has_predictions_and_they_are_those_of_the_parts_in_one_place(
    trained: dict[str, Any], tmp_path: Path
) -> None:
    grid = predict(trained, tmp_path / "p")
    found = kept_predictions(trained)
    assert found["phone"] == found["shop"] == []
    (path,) = found["bank"]
    assert path.stat().st_mode & 0o077 == 0
    together = tmp_path / "together"
    for name in NAMES:
        shutil.copytree(trained["root"] / f"kept-{name}" / "vertical" / trained["run"], together / "parties" / name)
    output = tmp_path / "alone.csv"
    files = [f"{name}={trained['root']}/new/{name}.csv" for name in NAMES]
    assert load_script("predict").main([str(together), *files, "--output", str(output)]) == 0
    own, expected = (list(csv.DictReader(file.read_text().splitlines())) for file in (path, output))
    count = 30 if trained["unmatched"] == "zero" else 28
    assert len(own) == len(expected) == count
    assert [row["name"] for row in own] == [str(number) for number in range(32 - count, 32)]
    assert {row["prediction"] for row in own} == {"n", "y"}
    for one, other in zip(own, expected, strict=True):
        assert (one["name"], one["prediction"]) == (other["name"], other["prediction"])
        assert float(one["probability of y"]) == pytest.approx(float(other["probability of y"]), abs=1e-6)
    summary = summary_of(tmp_path / "p")
    assert summary["predicted"] == count
    assert summary["parties"]["shop"]["matched"] == 28
    assert not (tmp_path / "p" / "parties").exists()
    show(tmp_path / "p", summary)
    assert "Parties" in (tmp_path / "p" / "report.html").read_text(encoding="utf-8")
    _server_learns_counts_alone(grid, own)


def _server_learns_counts_alone(grid: InProcessGrid, rows: list[dict[str, str]]) -> None:
    """All that the server has seen and written."""
    seen = b""
    for message in [*grid.sent, *grid.received]:
        for record in message.content.config_records.values():
            for key, value in record.items():
                seen += key.encode() + b"".join(v if isinstance(v, bytes) else str(v).encode() for v in _each(value))
                assert key != "figures" or all(float(v) == int(float(v)) for v in _each(value))  # counts
    for row in rows:
        assert row["probability of y"].encode() not in seen
    assert b"amount" not in seen
    assert not any(message.content.array_records for message in grid.received)


def _each(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


@pytest.mark.parametrize(
    ("party", "change", "more", "said"),
    [
        (1, {"predict-path": None}, "", "node-config does not go with this run"),
        (2, {"predict-path": "/nowhere/new.csv"}, "", "its data does not fit the task"),
        (0, {"keep-path": "/nowhere/kept"}, "", "node-config does not go with this run"),
        (0, {}, "vertical.normalise=clean", "vertical.normalise: not as in that run"),
        (0, {}, "vertical.embedding=5", "vertical.embedding: not as in that run"),
        (0, {}, "vertical.predict=abcdefabcdefabcd", "node-config does not go with this run"),
        (0, {"max-identities": 5}, "", "max-identities"),
    ],
)
def test_what_cannot_be_predicted_is_said_and_nothing_is_kept(
    trained: dict[str, Any], tmp_path: Path, party: int, change: dict[str, Any], more: str, said: str
) -> None:
    configs = [dict(config) for config in trained["configs"]]
    configs[party] = {key: value for key, value in {**configs[party], **change}.items() if value is not None}
    before = kept_predictions(trained)
    with pytest.raises(FederationError, match=said) as caught:
        predict(trained, tmp_path / "p", more, configs)
    assert str(trained["root"]) not in str(caught.value)
    assert kept_predictions(trained) == before
    assert not (tmp_path / "p" / "summary.json").exists()


def test_an_exchanged_part_is_refused(trained: dict[str, Any], tmp_path: Path) -> None:
    configs = [dict(config) for config in trained["configs"]]
    folder = tmp_path / "kept" / "vertical" / trained["run"]
    shutil.copytree(trained["root"] / "kept-shop" / "vertical" / trained["run"], folder)
    about = json.loads((folder / "part.json").read_text())
    (folder / "part.json").write_text(json.dumps({**about, "label_party": "shop"}))
    configs[2]["keep-path"] = str(tmp_path / "kept")
    with pytest.raises(FederationError, match="party shop: its node-config does not go"):
        predict(trained, tmp_path / "p", "", configs)


def test_a_simulation_is_told_of_its_own_script(tmp_path: Path) -> None:
    line = (
        f"task=vertical vertical.predict=abcdefabcdefabcd run.output_dir={tmp_path / 'p'} federation.wait_timeout=0.1"
    )
    with pytest.raises(FederationError, match=r"scripts/predict\.py RUN PARTY=FILE"):
        run_on_grid(InProcessGrid(line, 2), tmp_path / "p", line)


@pytest.mark.parametrize("name", ["latest", "../../etc", "ABCDEFABCDEFABCD", "abc"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"vertical\.predict=.*must be the name of a run"):
        vertical_options(compose(["task=vertical", f"vertical.predict={name}"]))
