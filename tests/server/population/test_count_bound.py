"""What a client claims of its number of examples decides nothing but its own bounded weight."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Message
from hypothesis import given
from hypothesis import strategies as st
from in_process import InProcessGrid, run_on
from own_keys import node_configs, write_keys

from fedapp.aggregation.exact_sum import WeightedSum
from fedapp.common.errors import ConfigError, FederationError
from fedapp.config import compose
from fedapp.server.population.cohort import CohortRule
from fedapp.server.population.count_bound import CountBound, count_bound
from fedapp.server.population.preflight import Population
from fedapp.server.population.roster import Roster
from fedapp.wire.preflight import PreflightReport

LARGEST = 2**53
ROWS = "".join(f"{30 + i},{'fm'[i % 2]},{['no', 'yes'][i % 3 == 0]}\n" for i in range(40))
RUN = (
    "data=csv data.label=ill data.numeric=[age] data.categorical={sex:[f,m]} data.classes=[no,yes]"
    " model=logistic_regression federation.num_rounds=2 federation.fraction_train=1 federation.min_clients=1"
    " federation.exclude_after=null"
)


@pytest.mark.parametrize("weighting", ["num_examples", "sqrt", "uniform"])
@given(
    counts=st.lists(st.integers(1, LARGEST), min_size=1, max_size=30),
    multiple=st.floats(1, 1e3),
    cap=st.none() | st.floats(0.1, 1e6),
)
def test_weights_never_sum_to_more_than_one(
    weighting: str, counts: list[int], multiple: float, cap: float | None
) -> None:
    bound = count_bound(multiple, counts, devices=True)
    rule = CohortRule(seed=0, weighting=weighting, weight_cap=cap)
    found = rule.weights(dict(enumerate(counts)), bound)
    assert 0 < math.fsum(found.values()) <= 1 + 1e-12
    assert min(found.values()) > 0


@pytest.mark.parametrize("weighting", ["num_examples", "sqrt", "uniform"])
def test_no_weight_depends_on_what_another_client_claims(weighting: str) -> None:
    rule, bound = CohortRule(seed=0, weighting=weighting), CountBound(10.0, 40)
    honest = rule.weights({0: 40, 1: 30, 2: 50}, bound)
    for claim in (1, 400, LARGEST):
        claimed = rule.weights({0: 40, 1: 30, 2: claim}, bound)
        assert {c: claimed[c] for c in (0, 1)} == {c: honest[c] for c in (0, 1)}
        assert claimed[2] <= 10 * claimed[0]


def test_a_weight_is_a_multiple_of_the_median_times_a_power_of_two() -> None:
    found = CohortRule(seed=0).weights({0: 40, 1: 30, 2: LARGEST}, CountBound(10.0, 40))
    assert found == {0: 1 / 32, 1: 0.75 / 32, 2: 10 / 32}


def test_a_rejected_client_of_any_claim_costs_the_others_no_precision() -> None:
    """The mean of those who are used, to within what the fixed point promises."""
    value = torch.tensor([0.013, -0.2, 3.0])
    counts = {0: 36, 1: 45, 2: LARGEST}
    weights = CohortRule(seed=0).weights(counts, count_bound("auto", counts.values(), devices=True))
    total = WeightedSum({"w": value})
    for client in (0, 1):
        total.add({"w": value}, weights[client])
    assert torch.equal((total.sum()["w"] / total.weight).float(), value)


def test_of_two_clients_neither_makes_the_other_vanish() -> None:
    for claims in ((100, LARGEST), (100, 1)):
        found = CohortRule(seed=0).weights(dict(enumerate(claims)), count_bound("auto", claims, devices=True))
        assert max(found.values()) <= 10 * min(found.values())


def test_auto_bounds_devices_and_leaves_simulations_as_they_were() -> None:
    assert count_bound("auto", [1, 2, 3], devices=True) == CountBound(10.0, 2)
    assert count_bound("auto", [1, 2, 3], devices=False) is None
    assert count_bound(None, [1, 2, 3], devices=True) is None
    assert count_bound(4, [1, 2, 3], devices=False) == CountBound(4.0, 2)


@pytest.mark.parametrize("value", ["0.5", "often", "-1", "nan"])
def test_other_bounds_are_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=r"strategy\.weight_bound"):
        compose([f"strategy.weight_bound={value}"])


def test_who_joins_is_bounded_by_the_median_of_the_preflight() -> None:
    roster = Roster(Population({0: 100, 1: 101}, {0: 40, 1: 50}, bound=CountBound(10.0, 40)))
    report = PreflightReport("code", "", (7,), (LARGEST,), ("",), site="site-X")
    assert roster.admit(107, report) == []
    assert roster.counted == {0: 40, 1: 50, 7: 400}
    assert "count as 400" in roster.bounded["client 7 (site-X)"]


def test_a_resumed_run_keeps_its_median() -> None:
    first = Roster(Population({0: 100}, {0: 40}, bound=CountBound(10.0, 40)))
    other = Roster(Population({0: 100}, {0: 9999}, bound=CountBound(10.0, 9999)))
    other.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert other.bound == CountBound(10.0, 40)
    assert other.counted == {0: 400}


# --- whole runs on devices ----------------------------------------------------------------------------------------


def devices(tmp_path: Path, count: int = 4) -> list[dict[str, Any]]:
    (tmp_path / "data.csv").write_text("age,sex,ill\n" + ROWS)
    return [
        {"data-path": str(tmp_path / "data.csv"), "partition-id": i, "site-name": f"site-{i}"} for i in range(count)
    ]


def claiming(claim: int, *, spoilt: bool) -> Any:
    """SuperNode 103 claims so many examples; spoilt, its updates are no numbers and its metrics perfect."""

    def tamper(reply: Message) -> Message:
        if reply.metadata.src_node_id != 103:
            return reply
        metrics = reply.content.metric_records["metrics"]
        if reply.metadata.message_type == "query":
            metrics["num-examples"] = [claim]
        elif spoilt:
            for name in list(reply.content.array_records):
                reply.content.pop(name, None)
        metrics["val-examples"], metrics["val-metric/accuracy"] = [float(LARGEST)], [1.0]
        return reply

    return tamper


def run(tmp_path: Path, name: str, line: str, *, signing: bool = False, **options: Any) -> dict[str, Any]:
    line = f"{line} federation.min_supernodes=4"
    configs = devices(tmp_path)
    if signing:
        keys = write_keys(tmp_path / f"{name}-keys", 4)
        for own, config in zip(node_configs(keys, 4), configs, strict=True):
            config |= {key: own[key] for key in ("signing-key", "peers")} | {"keep-path": f"{own['signing-key']}-kept"}
    grid = InProcessGrid(line, node_configs=configs, **options)
    directory = run_on(grid, tmp_path / name, line)
    found: dict[str, Any] = json.loads((directory / "summary.json").read_text())
    rows = (directory / "clients.jsonl").read_text().splitlines()
    return {**found, "rows": [row for row in map(json.loads, rows) if "phase" not in row]}


@pytest.mark.slow
def test_with_a_rejected_client_the_model_is_that_of_any_other_claim(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    modest = run(tmp_path, "modest", RUN, tamper=claiming(360, spoilt=True))
    assert modest["bounded"] == {}
    huge = run(tmp_path, "huge", RUN, tamper=claiming(LARGEST, spoilt=True))
    assert huge["rejected"] == modest["rejected"] == 2
    assert huge["model_sha256"] == modest["model_sha256"]
    assert list(huge["bounded"]) == ["client 3 (site-3)"]
    assert "count as 360, 10 times" in huge["bounded"]["client 3 (site-3)"]
    assert "client 3 (site-3) is bounded" in caplog.text


@pytest.mark.slow
def test_metrics_and_weights_count_the_same(tmp_path: Path) -> None:
    found = run(tmp_path, "run", RUN, tamper=claiming(LARGEST, spoilt=False))
    shares = {row["client"]: row["weight"] for row in found["rows"] if row["round"] == 1}
    assert math.fsum(shares.values()) == pytest.approx(1)
    assert shares[3] == pytest.approx(10 / 13)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    # The fourth counts by as many validation examples as count of its training examples.
    judged = [(min(row["val_examples"], 360), row["val_accuracy"]) for row in found["rows"] if row["round"] == 1]
    expected = sum(count * value for count, value in judged) / sum(count for count, _ in judged)
    assert lines[1]["val_accuracy"] == pytest.approx(expected)


@pytest.mark.slow
def test_under_secure_aggregation_too(tmp_path: Path) -> None:
    line = (
        f"{RUN} data.scaling=none secure_aggregation=secaggplus federation.final_evaluation=false"
        " federation.min_clients=2 strategy.weight_bound=2"
    )

    def claim(reply: Message) -> Message:
        if reply.metadata.src_node_id == 103 and reply.metadata.message_type == "query":
            reply.content.metric_records["metrics"]["num-examples"] = [LARGEST]
        return reply

    found = run(tmp_path, "run", line, signing=True, tamper=claim)
    assert (found["status"], found["rejected"]) == ("finished", 0)
    assert next(row["weight"] for row in found["rows"] if row["client"] == 3) == pytest.approx(2 / 5)
    with pytest.raises(FederationError):  # without the bound a client is alone in the sum, and nobody takes part
        run(tmp_path, "unbounded", line.replace("weight_bound=2", "weight_bound=null"), signing=True, tamper=claim)
