"""The preflight: scaling agreed through the federation, faults named, code compared."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message
from in_process import InProcessGrid

from fedapp.common.errors import DataError, FederationError
from fedapp.data.shards import hosted_clients, moments
from fedapp.server.exchange import Exchange
from fedapp.server.population.joining import AdmissionRules
from fedapp.server.population.moments import merge_moments
from fedapp.server.population.preflight import Population, preflight
from fedapp.wire.preflight import MOMENTS, unpack_preflight

pytestmark = pytest.mark.slow  # whole federations

COLUMNS = "data.numeric=[age,dose] data.categorical={sex:[f,m]} data.classes=[no,yes]"
UNFIT = "its data does not fit the task (see the client's log)"
DEVICES = f"data=csv data.label=ill {COLUMNS} model=logistic_regression federation.min_clients=2"


def write_table(path: Path, rows: int, seed: int, *, header: str = "age,dose,sex,ill", bad: str = "") -> Path:
    values = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header.split(","))
        for i in range(rows):
            age, dose = values.normal(50 + 10 * seed, 5), values.lognormal(seed)
            cells = [f"{age:.3f}", bad if bad and i == 3 else f"{dose:.3f}", "fm"[i % 2], ["no", "yes"][i % 3 == 0]]
            writer.writerow(cells[: len(header.split(","))])
    return path


def ask(overrides: str, node_configs: list[dict[str, Any]], **options: Any) -> Population:
    grid = InProcessGrid(overrides, node_configs=node_configs, **options)
    return asked(grid, min_supernodes=len(node_configs))


def asked(grid: InProcessGrid, **rules: Any) -> Population:
    defaults = {"num_clients": 20, "min_clients": 2, "wait_timeout": 1, "reply_timeout": 1, "features": 4}
    return preflight(Exchange(grid), AdmissionRules(**(defaults | rules)))


def devices(tmp_path: Path, **third: Any) -> list[dict[str, Any]]:
    paths = [write_table(tmp_path / f"{i}.csv", 40 + 10 * i, i) for i in range(2)]
    paths.append(write_table(tmp_path / "2.csv", 25, 2, **third))
    return [{"data-path": str(path), "partition-id": i, "num-partitions": 3} for i, path in enumerate(paths)]


def test_scaling_constants_are_those_of_all_training_data_together() -> None:
    values = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)).double() * 3 + 1e5
    values[::7, 1] = float("nan")
    cuts = [values[:10], values[10:11], values[11:300], values[300:]]
    parts = [moments(cut) for cut in cuts]
    mean, std = merge_moments([(m.count, m.mean, m.squares) for m in parts])
    assert np.allclose(mean.numpy(), np.nanmean(values.numpy(), 0), rtol=1e-12)
    assert np.allclose(std.numpy(), np.nanstd(values.numpy(), 0), rtol=1e-9)


def test_devices_agree_on_scaling_without_sharing_rows(tmp_path: Path) -> None:
    population = ask(DEVICES, devices(tmp_path))
    assert population.num_examples == {0: 36, 1: 45, 2: 23}
    assert population.mean is not None
    assert population.std is not None
    assert 55 < float(population.mean[0]) < 65
    assert float(population.std[0]) > 5  # the spread between sites is in it, so it is of no single client


def test_a_preflight_report_holds_counts_and_moments_and_nothing_else(tmp_path: Path) -> None:
    seen: list[Message] = []
    ask(DEVICES, devices(tmp_path), tamper=lambda reply: seen.append(reply) or reply)
    for reply in seen:
        assert set(reply.content) == {"arrays", "config", "metrics"}
        assert set(reply.content["arrays"]) == set(MOMENTS)
        assert all(value.shape == (1, 4) for value in unpack_preflight(reply.content).moments.values())


@pytest.mark.parametrize(
    ("third", "parts"),
    [
        ({"header": "age,dose,sex"}, ["2.csv", "'ill'"]),
        ({"bad": "much"}, ["2.csv", "dose", "much", "row 5"]),
        ({"bad": "NaN"}, ["2.csv", "dose", "row 5"]),
    ],
)
def test_a_device_with_bad_data_is_named_and_left_out(
    tmp_path: Path, third: dict[str, Any], parts: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The reason stays in its log: names and values of its data are nobody else's."""
    population = ask(DEVICES, devices(tmp_path, **third))
    assert sorted(population.nodes) == [0, 1]
    assert population.faults == {"client 2": UNFIT}
    (said,) = (record.getMessage() for record in caplog.records if "client 2 takes no part" in record.getMessage())
    assert all(part in said for part in parts), said


def test_too_few_clients_end_the_run_with_all_reasons(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    configs = [{"data-path": str(tmp_path / name), "partition-id": i} for i, name in enumerate(("a.csv", "b.csv"))]
    with pytest.raises(FederationError) as caught:
        ask(DEVICES, configs)
    said = str(caught.value)
    assert all(part in said for part in ("0 clients", "min_clients=2", f"client 0, client 1: {UNFIT}"))
    assert all(name in caplog.text and name not in said for name in ("a.csv", "b.csv"))


def test_other_code_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedapp.client.handlers.code_digest", lambda: "other")
    monkeypatch.setattr("fedapp.client.site_preflight.code_digest", lambda: "other")
    with pytest.raises(FederationError, match=r"other code than this ServerApp.*another checkout"):
        ask("", [{"partition-id": i, "num-partitions": 2} for i in range(2)])


BAD_REPORTS = [
    ({"num-examples": [-5]}, {}, "expected a count"),
    ({"num-examples": [float("inf")]}, {}, "whole number"),
    ({}, {"mean": float("nan")}, "impossible"),
    ({}, {"count": 1e9}, "impossible"),
    ({}, {"squares": -1.0}, "impossible"),
    ({}, {"mean": 1e200}, "impossible"),
    ({}, {"squares": 1e200}, "impossible"),
    ({}, {"count": 1.0}, "impossible"),  # with deviations
    ({}, {"count": 0.5}, "impossible"),
]


def test_other_code_costs_its_supernode_alone(tmp_path: Path) -> None:
    population = ask(DEVICES, devices(tmp_path), tamper=saying(102, code="other"))
    assert sorted(population.nodes) == [0, 1]
    assert "other code" in population.faults["SuperNode 102"]


def saying(node: int, **config: Any) -> Callable[[Message], Message]:
    """This SuperNode's report says so."""

    def tamper(reply: Message) -> Message:
        if reply.metadata.src_node_id == node:
            for name, value in config.items():
                reply.content["config"][name.replace("_", "-")] = value
        return reply

    return tamper


def test_a_client_that_two_devices_claim_is_neither(tmp_path: Path) -> None:
    grid = InProcessGrid(DEVICES, node_configs=devices(tmp_path), tamper=saying(102, clients=[1]))
    population = asked(grid, min_supernodes=3, min_clients=1)
    assert sorted(population.nodes) == [0]
    for node in (101, 102):
        assert "claimed by SuperNodes 101 and 102" in population.faults[f"client 1 of SuperNode {node}"]


def test_who_has_nothing_to_train_on_takes_no_clients_number(tmp_path: Path) -> None:
    def tamper(reply: Message) -> Message:
        if reply.metadata.src_node_id == 102:
            reply.content["metrics"]["num-examples"] = [0]
            reply.content.pop("arrays", None)
        return saying(102, clients=[1])(reply)

    population = ask(DEVICES, devices(tmp_path), tamper=tamper)
    assert population.nodes == {0: 100, 1: 101}


@pytest.mark.parametrize("claimed", [10**9, 2**53, 7, 5])
@pytest.mark.parametrize("overrides", ["federation.num_clients=6", DEVICES])
def test_one_that_claims_many_partitions_is_not_waited_for(
    tmp_path: Path, overrides: str, claimed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[int] = []
    monkeypatch.setattr(
        "fedapp.server.population.preflight.wait_for_supernodes",
        lambda grid, least, timeout: waited.append(least) or list(grid.get_node_ids()),
    )
    configs = devices(tmp_path) if overrides == DEVICES else None
    grid = InProcessGrid(overrides, 3, node_configs=configs, tamper=saying(102, num_partitions=claimed))
    population = asked(grid, num_clients=6, min_supernodes=3)
    assert waited == [3]
    assert set(population.nodes.values()) == {100, 101}
    assert f"num-partitions={claimed}" in population.faults["SuperNode 102"]


def test_all_that_claim_many_partitions_are_not_waited_for_either(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[int] = []
    monkeypatch.setattr(
        "fedapp.server.population.preflight.wait_for_supernodes",
        lambda grid, least, timeout: waited.append(least) or list(grid.get_node_ids()),
    )
    configs = [{"partition-id": i, "num-partitions": 10**9} for i in range(3)]
    population = asked(InProcessGrid("federation.num_clients=6", 3, node_configs=configs), num_clients=6)
    assert max(waited) == 6
    assert sorted(population.nodes) == [0, 1, 2]


def test_a_fault_of_a_supernode_does_not_smuggle_clients_in(tmp_path: Path) -> None:
    """Nor anybody's clients out."""
    tamper = claiming([0, 2, 5, 9], 0)
    population = ask(DEVICES, devices(tmp_path), tamper=lambda reply: saying(101, fault="broken")(tamper(reply)))
    assert sorted(population.nodes) == [0, 2]
    assert population.faults["SuperNode 101"] == "broken"


def test_a_supernode_that_names_a_client_twice_is_left_out() -> None:
    grid = InProcessGrid("federation.num_clients=6", 3, tamper=claiming([1, 1, 4], 3))
    population = asked(grid, num_clients=6)
    assert sorted(population.nodes) == [0, 2, 3, 5]
    assert "twice" in population.faults["SuperNode 101"]


@pytest.mark.parametrize("features", [0, 1, 3, 400])
def test_moments_of_another_form_cost_their_supernode_alone(tmp_path: Path, features: int) -> None:
    def tamper(reply: Message) -> Message:
        if reply.metadata.src_node_id == 102:
            reply.content["arrays"] = ArrayRecord({name: Array(np.zeros((1, features))) for name in MOMENTS})
        return reply

    population = ask(DEVICES, devices(tmp_path), tamper=tamper)
    assert sorted(population.nodes) == [0, 1]
    assert f"{features} features, the data has 4" in population.faults["SuperNode 102"]


def test_moments_that_nobody_asked_for_change_no_scale(tmp_path: Path) -> None:
    def tamper(reply: Message) -> Message:
        reply.content["arrays"] = ArrayRecord({name: Array(np.full((1, 4), 1.0)) for name in ("count", "mean")})
        reply.content["arrays"]["squares"] = Array(np.zeros((1, 4)))
        return reply

    grid = InProcessGrid(DEVICES, node_configs=devices(tmp_path), tamper=tamper)
    assert asked(grid, min_supernodes=3, features=0).mean is None


def test_moments_far_from_the_others_are_bounded_and_named(tmp_path: Path) -> None:
    def tamper(reply: Message) -> Message:
        if reply.metadata.src_node_id == 102:
            reply.content["arrays"]["mean"] = Array(np.full((1, 4), 1e30))
        return reply

    population = ask(DEVICES, devices(tmp_path), tamper=tamper)
    assert sorted(population.nodes) == [0, 1, 2]
    assert population.mean is not None
    assert 50 < float(population.mean[0]) < 200
    assert "too far from the others" in population.bounded[2]


@pytest.mark.parametrize(("metrics", "moment", "reason"), BAD_REPORTS)
def test_an_impossible_preflight_report_costs_its_supernode_alone(
    tmp_path: Path, metrics: dict[str, list[float]], moment: dict[str, float], reason: str
) -> None:
    def tamper(reply: Message) -> Message:
        if reply.metadata.src_node_id == 102:
            for name, values in metrics.items():
                reply.content["metrics"][name] = values
            for name, value in moment.items():
                reply.content["arrays"][name] = Array(np.full((1, 4), value))
        return reply

    population = ask(DEVICES, devices(tmp_path), tamper=tamper)
    assert sorted(population.nodes) == [0, 1]
    assert reason in population.faults["SuperNode 102"]


def test_the_servers_paths_are_not_read_on_a_device(tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("pin,name\n1234,somebody\n")
    for line in (f"data=csv data.path={secret} data.label=y", f"data=csv data.path={secret} data.label=pin"):
        with pytest.raises(FederationError) as caught:
            ask(f"{line} model=logistic_regression", devices(tmp_path))
        assert "1234" not in str(caught.value)
        assert "name" not in str(caught.value)
        assert "data.numeric" in str(caught.value)


def test_two_supernodes_with_one_partition_are_refused() -> None:
    with pytest.raises(FederationError, match=r"client 0 is claimed by SuperNodes 100 and 101.*partition-id"):
        ask("", [{"partition-id": 0, "num-partitions": 2}] * 2)


def test_missing_supernodes_are_counted() -> None:
    grid = InProcessGrid("", 2)
    with pytest.raises(FederationError, match=r"2 of 3 SuperNodes came within 0.1 s"):
        asked(grid, min_supernodes=3, wait_timeout=0.1, min_clients=1)


def test_supernodes_that_come_late_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = InProcessGrid("federation.num_clients=4", 3)
    calls = iter([[100], [100, 101]])
    monkeypatch.setattr(grid, "get_node_ids", lambda: next(calls, [100, 101, 102]))
    population = asked(grid, wait_timeout=5)
    assert population.nodes == {0: 100, 1: 101, 2: 102, 3: 100}
    assert not population.faults


def test_a_supernode_that_never_comes_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = InProcessGrid("federation.num_clients=4", 3)
    monkeypatch.setattr(grid, "get_node_ids", lambda: [100, 101])
    population = asked(grid, wait_timeout=0.1)
    assert sorted(population.nodes) == [0, 1, 3]
    assert population.faults == {"other SuperNodes": "2 of 3 came within 0.1 s"}


def test_more_supernodes_than_clients() -> None:
    population = ask("federation.num_clients=2", [{"partition-id": i, "num-partitions": 4} for i in range(4)])
    assert population.nodes == {0: 100, 1: 101}
    assert not population.faults


def test_virtual_clients_are_dealt_out_by_remainder() -> None:
    assert hosted_clients({"partition-id": 1, "num-partitions": 3}, 7, 8) == [1, 4, 7]
    assert hosted_clients({"data-path": "/x"}, 7, 8) == [7]
    assert hosted_clients({"data-path": "/x", "partition-id": 2, "num-partitions": 3}, 7, 8) == [2]
    with pytest.raises(DataError, match="names no data"):
        hosted_clients({}, 7, 8)
    with pytest.raises(DataError, match=r"must lie in 0..2"):
        hosted_clients({"partition-id": 3, "num-partitions": 3}, 7, 8)


def claiming(clients: list[int], partitions: int) -> Callable[[Message], Message]:
    """SuperNode 101 says that it is these clients."""

    def claim(reply: Message) -> Message:
        if reply.metadata.src_node_id == 101:
            config, metrics = reply.content["config"], reply.content["metrics"]
            config["clients"], config["faults"] = clients, [""] * len(clients)
            config["num-partitions"], config["data"] = partitions, []
            metrics["num-examples"] = [100] * len(clients)
            reply.content.pop("arrays", None)
        return reply

    return claim


@pytest.mark.parametrize(
    ("clients", "partitions", "reason"),
    [
        ([1, 4, 1000], 3, "not its own"),
        ([1, 2, 4], 3, "not its own"),
        ([1, 3, 5], 2, "num-partitions=2, most others 3"),
        ([7], 0, "num-partitions=nothing, most others 3"),
    ],
)
def test_nobody_is_more_clients_than_its_own(clients: list[int], partitions: int, reason: str) -> None:
    grid = InProcessGrid("federation.num_clients=6", 3, tamper=claiming(clients, partitions))
    population = asked(grid, num_clients=6)
    assert sorted(population.nodes) == [0, 2, 3, 5]
    assert reason in population.faults["SuperNode 101"]


def test_a_device_is_one_client(tmp_path: Path) -> None:
    found = ask(DEVICES, devices(tmp_path), tamper=claiming([1, 5, 6], 0))
    assert sorted(found.nodes) == [0, 2]
    assert "a device is one client" in found.faults["SuperNode 101"]
