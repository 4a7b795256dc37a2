"""A run that goes on after its data has changed: refused in a simulation, warned of on devices."""

from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import InProcessGrid, run_in_process
from secure_runs import summary

from fedapp.common.errors import ConfigError
from fedapp.data.source import Examples
from fedapp.server.population.preflight import query
from fedapp.wire.preflight import unpack_preflight

TABLE = "data=csv data.label=ill model=logistic_regression partition=iid federation.num_clients=3"
ROUNDS = "federation.fraction_train=1 federation.num_rounds="


def write(path: Path, rows: int, first: int = 0) -> None:
    lines = [f"{(first if i == 0 else i) % 9},{i % 4},{'yes' if i % 2 else 'no'}" for i in range(rows)]
    path.write_text("\n".join(["a,b,ill", *lines]) + "\n")


def go(directory: Path, overrides: str, rounds: int, more: str = "", **grid: Any) -> Path:
    return run_in_process(directory, f"{overrides} {ROUNDS}{rounds} run.output_dir={directory} {more}", **grid)


@pytest.mark.parametrize("change", ["one value", "one row more", "another order"])
def test_in_a_simulation_it_is_refused_and_the_clients_are_named(tmp_path: Path, change: str) -> None:
    path, run = tmp_path / "t.csv", tmp_path / "run"
    write(path, 90)
    overrides = f"{TABLE} data.path={path}"
    go(run, overrides, 1)
    before = (run / "metrics.jsonl").read_text()
    if change == "another order":
        head, *rows = path.read_text().splitlines()
        path.write_text("\n".join([head, *reversed(rows)]) + "\n")
    else:
        write(path, 91 if change == "one row more" else 90, first=5 if change == "one value" else 0)
    with pytest.raises(
        ConfigError, match=r"the data of (client \d|the server's test).* is not what it was .*run.initial_model"
    ):
        go(run, overrides, 2, "run.resume=auto")
    assert (run / "metrics.jsonl").read_text() == before


def test_the_same_data_goes_on_with_any_number_of_supernodes(tmp_path: Path) -> None:
    path, run = tmp_path / "t.csv", tmp_path / "run"
    write(path, 90)
    go(run, f"{TABLE} data.path={path}", 1)
    path.write_text(path.read_text())  # another time on the file
    go(run, f"{TABLE} data.path={path}", 2, "run.resume=auto", num_nodes=3)
    assert summary(run)["status"] == "finished"
    assert summary(run)["warnings"] == []


def test_on_devices_it_is_warned_of_by_their_numbers_of_examples(tmp_path: Path) -> None:
    schema = f"{TABLE} data.numeric=[a,b] data.categorical={{}} data.classes=[no,yes]"
    configs = [{"data-path": str(tmp_path / f"{i}.csv"), "partition-id": i} for i in range(3)]
    for i in range(3):
        write(tmp_path / f"{i}.csv", 30)
    go(tmp_path / "run", schema, 1, node_configs=configs)
    write(tmp_path / "1.csv", 60)
    go(tmp_path / "run", schema, 2, "run.resume=auto", node_configs=configs)
    (said,) = summary(tmp_path / "run")["warnings"]
    assert said == ("the data of client 1 is not what it was when this run began; it goes on with what they have now")


def test_a_device_tells_no_digest_of_its_data(tmp_path: Path) -> None:
    schema = f"{TABLE} data.numeric=[a,b] data.categorical={{}} data.classes=[no,yes]"
    write(tmp_path / "0.csv", 30)
    seen = []
    for configs in ([{"data-path": str(tmp_path / "0.csv"), "partition-id": 0}], None):
        overrides = schema if configs else f"{schema} data.path={tmp_path / '0.csv'}"
        grid = InProcessGrid(overrides, 1, node_configs=configs)
        list(grid.send_and_receive([query(100, 60.0)]))
        seen.append(unpack_preflight(grid.received[0].content).data)
    assert seen[0] == ()
    assert len(set(seen[1])) == 3
    assert all(len(digest) == 64 for digest in seen[1])


def test_a_digest_is_of_every_byte_and_of_the_form() -> None:
    base = Examples(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64))
    other = [
        Examples(torch.tensor([[0.0, 0], [0, 0], [0, 0], [0, 1e-30]]), base.targets),
        Examples(base.inputs, torch.tensor([0, 0, 0, 1])),
        Examples(torch.zeros(4, 1, 2), base.targets),
        Examples(torch.zeros(4, 2, dtype=torch.float64), base.targets),
        base.span(0, 3),
    ]
    assert len({examples.sha256() for examples in [base, *other]}) == 6
    assert base.take([3, 2, 1, 0]).sha256() == base.sha256()
