"""What buffered rounds and virtual time do not go with is said by name; their cost under DP-SGD is in the ledgers."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from in_process import run_in_process

from fedapp.common.errors import ConfigError
from fedapp.config import compose
from fedapp.server.asynchronous.client_speed import speed_of, vanishes
from fedapp.server.check_config import check_config

BUFFERED = "rounds=buffered model=logistic_regression"
VIRTUAL = "federation.client_speed=lognormal model=logistic_regression"
DP = (
    "privacy=dp_sgd privacy.accountant=rdp privacy.sample_rate=0.5 partition=iid privacy.noise_multiplier=2.0"
    " model=logistic_regression"
)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (f"{BUFFERED} secure_aggregation=secaggplus", r"secure_aggregation=secaggplus binds a cohort to one model"),
        (f"{BUFFERED} secure_aggregation=helper", r"secure_aggregation=helper binds a cohort to one model"),
        (f"{BUFFERED} privacy=client_dp federation.num_clients=200", r"rounds=buffered: not with privacy=client_dp"),
        (f"{VIRTUAL} secure_aggregation=secaggplus", r"federation.client_speed: .*secure_aggregation=secaggplus"),
        (f"{VIRTUAL} privacy=client_dp federation.num_clients=200", r"federation.client_speed: .*privacy=client_dp"),
        (
            f"{BUFFERED} cohort=power_of_choice strategy.weighting=uniform",
            r"rounds=buffered: .*cohort=power_of_choice asks candidates",
        ),
        (f"{BUFFERED} compression=quantise", r"rounds=buffered: .*compression=quantise sends levels"),
        (f"{BUFFERED} strategy=qfedavg", r"rounds=buffered: .*strategy.fairness works on the sum"),
        (f"{BUFFERED} rounds.buffer_size=1", r"rounds.buffer_size=1: a step needs 2 good updates"),
        (f"{BUFFERED} rounds.refill=after_step rounds.concurrency=4", r"buffer_size=5: with rounds.refill=after_step"),
        (f"{BUFFERED} federation.over_selection=0.3", r"federation.over_selection=0.3: rounds=buffered has no cohort"),
        (f"{BUFFERED} strategy=median", r"rounds.staleness_exponent=0.5: .*Median counts every update alike"),
        (f"{BUFFERED} federation.dropout=0.1", r"federation.dropout=0.1: clients vanish in virtual time only"),
        (f"{BUFFERED} federation.patience=3 data.test_fraction=0", r"federation.patience.*needs test data of its own"),
        (f"{BUFFERED} {DP.replace('noise_multiplier=2.0', 'target_epsilon=4')}", r"privacy.planned_rounds=null"),
        (f"{BUFFERED} rounds.max_staleness=-1", r"rounds.max_staleness=-1: must be at least 0"),
        (f"{BUFFERED} rounds.refill=never", r"rounds.refill='never': must be one of"),
        ("federation.client_speed=lognormal federation.client_speed.sigma=-1", r"client_speed.sigma=-1: must be at"),
    ],
)
def test_conflicts_are_named_before_anything_starts(overrides: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_config(compose(overrides.split()))


def test_a_buffer_larger_than_the_population_is_never_full(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"rounds.buffer_size=7: .*there are 6 clients; set it to 6, or less"):
        run_in_process(tmp_path / "run", f"{BUFFERED} federation.num_clients=6 rounds.buffer_size=7")


@pytest.mark.parametrize("name", ["bfv", "paillier"])
def test_encrypted_sums_are_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigError, match=f"secure_aggregation={name} binds a cohort to one model"):
        check_config(compose(f"{BUFFERED} secure_aggregation={name}".split()))


# --- speeds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        ("client,second\n0,1\n", "has the columns client, second; it needs client and seconds"),
        ("client,seconds\n0,fast\n", "line 2: client=0, seconds=fast: must be a client's number"),
        ("client,seconds\n0,1\n1,0\n", "line 3: client=1, seconds=0: must be 0 or more, and above 0"),
        ("client,seconds\n0,1\n1,nan\n", "line 3: client=1, seconds=nan"),
        ("client,seconds\n0,1\n0,2\n", "line 3: client 0 has a row already"),
        ("client,seconds\n0,1\n1,2\n", r"has no row for clients \[2, 3\] of federation.num_clients=4"),
        ("", "has the columns \\(none\\)"),
    ],
)
def test_a_bad_file_of_speeds_is_named(content: str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "speeds.csv"
    if content is not None:
        path.write_text(content)
    speed = f"federation.client_speed=from_file federation.client_speed.path={path} federation.num_clients=4"
    with pytest.raises(ConfigError, match=said):
        check_config(compose(speed.split()))


def test_speeds_are_functions_of_seed_client_and_round() -> None:
    found = speed_of(compose(["federation.client_speed=lognormal"]))
    own = [found.duration(0, 1, client, 10) for client in range(200)]
    assert own == [found.duration(0, 7, client, 99) for client in range(200)]
    assert own != [found.duration(1, 1, client, 10) for client in range(200)]
    ranked = sorted(own)
    # Of 200 log-normal draws with sigma 0.8: the quartile ratio is exp(2 x 0.6745 x 0.8) = 2.94.
    assert 2.2 < ranked[150] / ranked[50] < 4.0
    assert 0.75 < ranked[100] < 1.35
    jittered = speed_of(compose(["federation.client_speed=lognormal", "federation.client_speed.jitter=0.5"]))
    assert jittered.duration(0, 1, 3, 10) != jittered.duration(0, 2, 3, 10)
    by_size = speed_of(compose(["federation.client_speed=by_size"]))
    assert by_size.duration(0, 1, 0, 100) == pytest.approx(1.2)


def test_dropout_is_as_often_as_asked_for() -> None:
    gone = [vanishes(0.3, 0, number, client) for number in range(50) for client in range(40)]
    assert abs(sum(gone) / len(gone) - 0.3) < 0.04  # 4 standard deviations
    assert gone == [vanishes(0.3, 0, number, client) for number in range(50) for client in range(40)]
    assert not any(vanishes(0.0, 0, number, 1) for number in range(50))


ROWS = "".join(f"{30 + i},{'fm'[i % 2]},{['no', 'yes'][i % 3 == 0]}\n" for i in range(40))
DEVICES = (
    "data=csv data.label=ill data.numeric=[age] data.categorical={sex:[f,m]} data.classes=[no,yes] data.scaling=none"
    " model=logistic_regression federation.num_rounds=3 federation.fraction_train=1 data.test_fraction=0"
)


def devices(folder: Path) -> list[dict[str, Any]]:
    """Of three devices with 40, 30 and 20 rows."""
    for number in range(3):
        rows = ROWS.splitlines(keepends=True)[: 40 - 10 * number]
        (folder / f"{number}.csv").write_text("age,sex,ill\n" + "".join(rows))
    return [{"data-path": str(folder / f"{number}.csv"), "partition-id": number} for number in range(3)]


def test_virtual_time_is_not_for_devices(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"federation.client_speed: is for a simulation's clients"):
        run_in_process(tmp_path / "run", f"{DEVICES} {VIRTUAL}", node_configs=devices(tmp_path))


def test_devices_whose_buffer_is_the_cohort_compute_what_synchronous_rounds_do(tmp_path: Path) -> None:
    """Weights are bounded here, and replies come as they come: what is summed is the same."""
    buffered = "rounds=buffered rounds.refill=after_step rounds.concurrency=3 rounds.buffer_size=3"
    sums = [
        json.loads((run_in_process(tmp_path / name, f"{DEVICES} {options}", **given) / "summary.json").read_text())
        for name, options, given in (
            ("synchronous", "", {"node_configs": devices(tmp_path)}),
            ("buffered", buffered, {"node_configs": devices(tmp_path), "shuffle": 1}),
        )
    ]
    assert sums[0]["model_sha256"] == sums[1]["model_sha256"]
    assert "virtual_seconds" not in sums[1]


# --- synchronous rounds in virtual time ---------------------------------------------------------------------------

SYNCHRONOUS = (
    "federation.num_clients=10 federation.num_rounds=5 model=logistic_regression federation.fraction_train=0.4"
)


def test_equal_speeds_change_no_synchronous_round(tmp_path: Path) -> None:
    plain = run_in_process(tmp_path / "plain", SYNCHRONOUS)
    virtual = run_in_process(tmp_path / "virtual", f"{SYNCHRONOUS} federation.client_speed=constant")
    sums = [json.loads((path / "summary.json").read_text()) for path in (plain, virtual)]
    assert sums[0]["model_sha256"] == sums[1]["model_sha256"]
    assert sums[1]["virtual_seconds"] == 5.0
    assert "virtual_seconds" not in sums[0]


def test_over_selection_takes_the_fastest_and_calls_the_others_surplus(tmp_path: Path) -> None:
    overrides = f"{SYNCHRONOUS} federation.client_speed=lognormal federation.over_selection=0.5"
    directory = run_in_process(tmp_path / "run", overrides)
    rounds = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()][1:]
    rows = [json.loads(line) for line in (directory / "clients.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row.get("phase") != "final"]
    speed, began = speed_of(compose(overrides.split())), 0.0
    for line in rounds:
        mine = [row for row in rows if row["round"] == line["round"] and row["staleness"] == 0]
        assert len(mine) == 4
        asked = [row for row in _events(directory) if row["round"] == line["round"] and row["event"] == "asked"]
        fastest = sorted(speed.duration(0, 1, row["client"], 0) for row in asked)
        assert line["virtual_seconds"] == pytest.approx(began + fastest[3])
        began = line["virtual_seconds"]
    late = [row for row in rows if row.get("unused")]
    assert late
    assert {row["unused"] for row in late} == {"surplus: the round had its replies"}
    assert all(row["staleness"] >= 1 and not row["rejected"] for row in late)


def _events(directory: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (directory / "arrivals.jsonl").read_text().splitlines()]


def test_who_is_slower_than_the_timeout_is_late(tmp_path: Path) -> None:
    speeds = tmp_path / "speeds.csv"
    speeds.write_text("client,seconds\n" + "".join(f"{client},{30 if client == 4 else 1}\n" for client in range(10)))
    overrides = f"{SYNCHRONOUS} federation.fraction_train=1 federation.round_timeout=5 federation.num_rounds=2"
    speed = f"federation.client_speed=from_file federation.client_speed.path={speeds} federation.exclude_after=null"
    directory = run_in_process(tmp_path / "run", f"{overrides} {speed} federation.final_evaluation=false")
    rows = [json.loads(line) for line in (directory / "clients.jsonl").read_text().splitlines()]
    assert {row["client"] for row in rows if row["rejected"]} == {4}
    assert {row["rejected"] for row in rows if row["client"] == 4} == {"no reply in time"}
    assert [row["round"] for row in rows if row["client"] == 4] == [1]  # in round 2 it is still at work
    assert json.loads((directory / "summary.json").read_text())["virtual_seconds"] == 6.0


def test_vanishing_clients_cost_a_round_its_timeout_and_nothing_else(tmp_path: Path) -> None:
    overrides = f"{SYNCHRONOUS} federation.client_speed=constant federation.dropout=0.3 federation.round_timeout=20"
    directory = run_in_process(tmp_path / "run", f"{overrides} federation.num_rounds=6")
    rounds = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()][1:]
    took = [line["virtual_seconds"] - before["virtual_seconds"] for before, line in itertools.pairwise(rounds)]
    assert {round(seconds, 6) for seconds in took} <= {1.0, 20.0}
    assert 20.0 in took
    rows = [json.loads(line) for line in (directory / "clients.jsonl").read_text().splitlines()]
    assert {row["rejected"] for row in rows} == {None, "no reply in time"}
    assert all(line["seconds"] < 15 for line in rounds)  # of real time nobody waits


# --- ledgers ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ledgers_count_what_was_trained_used_or_not(tmp_path: Path) -> None:
    speeds = tmp_path / "speeds.csv"
    speeds.write_text("client,seconds\n" + "".join(f"{client},{4 if client == 0 else 1}\n" for client in range(5)))
    overrides = (
        f"{DP} rounds=buffered rounds.concurrency=5 rounds.buffer_size=2 rounds.max_staleness=2"
        f" federation.num_clients=5 federation.num_rounds=20"
        f" federation.client_speed=from_file federation.client_speed.path={speeds}"
    )
    directory = run_in_process(tmp_path / "run", f"{overrides} run.output_dir={tmp_path}/run")
    rows = [json.loads(line) for line in (directory / "clients.jsonl").read_text().splitlines()]
    unused = [row for row in rows if row.get("unused")]
    assert unused
    assert {row["client"] for row in unused} == {0}
    events = _events(directory)
    for client in range(5):
        asked = [row for row in events if row.get("client") == client and row["event"] == "asked"]
        ledger = (directory / "ledgers" / f"client-{client}.jsonl").read_text().splitlines()
        assert len([line for line in ledger if "round" in json.loads(line)]) == len(asked)
    # The server's own count has them, too: what was not used is no cheaper.
    spent = [row["epsilon"] for row in unused]
    assert all(epsilon > 0 for epsilon in spent)
    assert spent == sorted(spent)
    assert len(set(spent)) == len(spent)
