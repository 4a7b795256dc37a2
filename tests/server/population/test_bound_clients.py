"""Client numbers are bound to registered keys: no SuperNode takes another site's place, at the start or later."""

import csv
from pathlib import Path
from typing import Any

import pytest
from in_process import InProcessGrid, make_context, run_on

from fedapp.common.errors import FederationError
from fedapp.flower.registered import registered_name
from fedapp.server.exchange import Exchange
from fedapp.server.population.joining import AdmissionRules
from fedapp.server.population.preflight import Population, preflight

TASK = (
    "data=csv data.label=ill data.numeric=[age] data.categorical={} data.classes=[no,yes] data.scaling=none"
    " model=logistic_regression train.val_fraction=0 federation.min_clients=2"
)


@pytest.fixture
def configs(tmp_path: Path) -> list[dict[str, Any]]:
    """Of devices that say they are clients 0, 1 and 2."""
    for number in range(3):
        with (tmp_path / f"{number}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("age", "ill"), *((i + 0.5, ("no", "yes")[i % 2]) for i in range(20))])
    return [{"data-path": str(tmp_path / f"{i}.csv"), "partition-id": i} for i in range(3)]


def asked(configs: list[dict[str, Any]], registered: dict[int, int | None]) -> Population:
    grid = InProcessGrid(TASK, node_configs=configs)
    grid.names = {100 + node: registered_name("site", client) for node, client in registered.items()}
    return preflight(Exchange(grid), AdmissionRules(num_clients=20, min_clients=2, wait_timeout=1, reply_timeout=9))


def test_a_supernode_that_claims_another_s_number_is_the_one_that_is_left_out(configs: list[dict[str, Any]]) -> None:
    configs[2]["partition-id"] = 0
    population = asked(configs, {0: 0, 1: 1, 2: 2})
    assert population.nodes == {0: 100, 1: 101}
    assert "it says that it is client 0, and its key is registered for client 2" in population.faults["SuperNode 102"]


def test_nor_does_it_take_the_place_of_a_site_that_is_away(configs: list[dict[str, Any]]) -> None:
    configs[2]["partition-id"] = 7
    assert asked(configs, {0: 0, 1: 1, 2: 2}).nodes == {0: 100, 1: 101}


def test_keys_that_are_bound_to_no_client_are_admitted_as_before(configs: list[dict[str, Any]]) -> None:
    assert asked(configs, {0: 0, 2: None}).nodes == {0: 100, 1: 101, 2: 102}


def test_who_joins_later_is_looked_at_alike(configs: list[dict[str, Any]], tmp_path: Path) -> None:
    overrides = TASK + " federation.num_rounds=3 federation.wait_timeout=1 federation.min_supernodes=2"
    grid = InProcessGrid(overrides, node_configs=configs[:2])
    grid.names = {103: registered_name("site-X", 5), 104: registered_name("site-Y", 4)}
    push = grid.push_messages

    def joining(messages: Any) -> Any:
        messages = list(messages)
        if any(m.metadata.message_type == "train" for m in messages):
            for node, claimed in ((103, 2), (104, 4)):
                grid.contexts.setdefault(node, make_context(node, {**configs[2], "partition-id": claimed}, overrides))
        return push(messages)

    grid.push_messages = joining  # type: ignore[method-assign]
    directory = run_on(grid, tmp_path / "run", overrides)
    rows = (directory / "clients.jsonl").read_text()
    assert '"client": 4' in rows
    assert '"client": 2' not in rows
    assert "its key is registered for client 5" in (directory / "summary.json").read_text()


def test_a_run_of_impostors_alone_does_not_begin(configs: list[dict[str, Any]]) -> None:
    with pytest.raises(FederationError, match="0 clients can take part"):
        asked(configs, {0: 1, 1: 2, 2: 0})
