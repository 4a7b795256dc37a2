"""Buffered rounds: what they compute, and that no client's reply costs more than itself."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from buffered_runs import BUFFERED, SMALL, VIRTUAL, changed, client_of, lines, sha, summary
from flwr.app import ArrayRecord, ConfigRecord, Message
from in_process import run_in_process

from fedapp.common.errors import FederationError

ALL_EQUAL = "federation.client_speed=constant rounds=buffered rounds.refill=after_step"

# --- what is computed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        "federation.fraction_train=1",
        "federation.fraction_train=0.5 strategy=fedadam",
        "federation.fraction_train=1 strategy=median federation.num_clients=5",
        "federation.fraction_train=1 strategy=multi_krum",
        "federation.fraction_train=1 strategy.max_update_norm=50 lr_schedule@client_lr=cosine",
        "federation.fraction_train=0.5 strategy.weighting=sqrt",
    ],
)
def test_equal_speeds_and_a_buffer_of_the_cohort_are_synchronous_rounds(options: str, tmp_path: Path) -> None:
    cohort = 3 if "0.5" in options else 5 if "num_clients=5" in options else 6
    sizes = f"rounds.concurrency={cohort} rounds.buffer_size={cohort}"
    alike = "rounds.staleness_exponent=0" if "median" in options or "krum" in options else ""
    synchronous = run_in_process(tmp_path / "synchronous", f"{SMALL} {options}")
    buffered = run_in_process(tmp_path / "buffered", f"{SMALL} {options} {ALL_EQUAL} {sizes} {alike}")
    assert sha(buffered) == sha(synchronous)
    for theirs, ours in zip(lines(synchronous, "metrics.jsonl"), lines(buffered, "metrics.jsonl"), strict=True):
        assert {key: ours[key] for key in theirs if key not in ("bytes_up", "bytes_down")} == {
            key: value for key, value in theirs.items() if key not in ("bytes_up", "bytes_down")
        }


def test_staleness_is_weighed_and_divided_as_in_the_paper(tmp_path: Path) -> None:
    """With no learning but from one buffer: the step is the sum of discounted updates over the undiscounted weight."""
    half = run_in_process(tmp_path / "half", VIRTUAL)
    none = run_in_process(tmp_path / "none", f"{VIRTUAL} rounds.staleness_exponent=0")
    rows = lines(half, "clients.jsonl")
    assert max(row["staleness"] for row in rows) >= 1
    assert sha(half) != sha(none)
    for number in range(1, 5):
        used = [row for row in rows if row["round"] == number and row["weight"]]
        counts = {row["client"]: row["num_examples"] / (1 + row["staleness"]) ** 0.5 for row in used}
        for row in used:
            assert row["weight"] == pytest.approx(counts[row["client"]] / sum(counts.values()))


@pytest.mark.parametrize(("nodes", "shuffle"), [(1, None), (2, 3), (6, 5)])
def test_virtual_time_is_the_same_for_any_number_of_supernodes_and_any_order(
    nodes: int, shuffle: int | None, tmp_path: Path
) -> None:
    one = run_in_process(tmp_path / "one", VIRTUAL, 3)
    other = run_in_process(tmp_path / "other", VIRTUAL, nodes, shuffle=shuffle)
    assert sha(one) == sha(other)
    for name in ("metrics.jsonl", "clients.jsonl", "arrivals.jsonl"):
        assert lines(one, name) == lines(other, name)


def test_virtual_time_is_the_same_however_long_the_work_takes(tmp_path: Path) -> None:
    """A third of a real second for each reply, where the round's timeout is a tenth of a virtual one."""
    speed = "federation.client_speed=constant federation.client_speed.seconds=0.05 federation.round_timeout=0.1"
    prompt = run_in_process(tmp_path / "prompt", f"{BUFFERED} {speed}", 6)
    delayed = run_in_process(
        tmp_path / "delayed",
        f"{BUFFERED} {speed}",
        6,
        delay=lambda reply: 0.0 if client_of(reply) is None else 0.3,
    )
    assert sha(delayed) == sha(prompt)
    assert lines(delayed, "arrivals.jsonl") == lines(prompt, "arrivals.jsonl")
    assert not any(row["rejected"] for row in lines(delayed, "clients.jsonl"))


def test_no_client_has_two_updates_in_a_buffer_or_trains_twice_from_a_model(tmp_path: Path) -> None:
    directory = run_in_process(tmp_path / "run", f"{VIRTUAL} federation.num_rounds=12 rounds.buffer_size=3")
    asked = [(row["client"], row["round"]) for row in lines(directory, "arrivals.jsonl") if row["event"] == "asked"]
    assert len(asked) == len(set(asked))
    ended = [(row["client"], row["round"]) for row in lines(directory, "clients.jsonl")]
    assert len(ended) == len(set(ended))


def test_concurrency_clients_are_at_work_at_any_time(tmp_path: Path) -> None:
    directory = run_in_process(tmp_path / "run", f"{VIRTUAL} federation.num_rounds=8")
    at_work = most = 0
    for row in lines(directory, "arrivals.jsonl"):
        at_work += {"asked": 1, "ended": -1, "over": 0}[row["event"]]
        most = max(most, at_work)
    assert most == 4
    assert [row["at_work"] for row in lines(directory, "metrics.jsonl")[1:]] == [3] * 8


# --- replies of any kind ------------------------------------------------------------------------------------------


def _of_another(reply: Message) -> Message:
    records = reply.content.config_records["config"]
    reply.content["config"] = ConfigRecord({**records, "clients": [5]})
    return reply


def _two_updates(reply: Message) -> Message:
    reply.content["arrays-4"] = ArrayRecord(dict(next(iter(reply.content.array_records.values())).items()))
    return reply


def _to_another_round(reply: Message) -> Message:
    reply.metadata.__dict__["_group_id"] = "77"
    return reply


HOSTILE: dict[str, tuple[Callable[[Message], Any], str]] = {
    "NaN": (lambda reply: changed(reply, float("nan")), "non-finite value"),
    "huge": (lambda reply: changed(reply, 1e9), "value out of range"),
    "of another client": (_of_another, "not about the clients that were asked"),
    "two updates": (_two_updates, "no update of client 3 alone"),
    "to another round": (_to_another_round, "bad reply: it is to another message"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_reply_costs_no_more_than_itself(kind: str, tmp_path: Path) -> None:
    spoil, said = HOSTILE[kind]
    overrides = f"{VIRTUAL} federation.exclude_after=null federation.num_rounds=6"
    directory = run_in_process(
        tmp_path / "run", overrides, 6, tamper=lambda reply: spoil(reply) if client_of(reply) == 3 else reply
    )
    rows = [row for row in lines(directory, "clients.jsonl") if row["client"] == 3]
    assert rows
    assert all(said in row["rejected"] and row["weight"] == 0 for row in rows)
    assert summary(directory)["rounds"] == 6
    others = [row for row in lines(directory, "clients.jsonl") if row["client"] not in (3, None)]
    assert not any(row["rejected"] for row in others)


@pytest.mark.parametrize("overrides", [VIRTUAL, BUFFERED], ids=["virtual", "real"])
def test_a_second_reply_is_dropped(overrides: str, tmp_path: Path) -> None:
    def doubled(reply: Message) -> Message | list[Message]:
        return [reply, reply] if reply.metadata.message_type == "train" else reply

    directory = run_in_process(tmp_path / "run", overrides, 6, tamper=doubled)
    strays = [row["rejected"] for row in lines(directory, "clients.jsonl") if row["client"] is None]
    assert strays
    assert all("answered twice" in said for said in strays)
    used = [row for row in lines(directory, "arrivals.jsonl") if row.get("outcome") == "used"]
    assert len(used) == 8  # 4 steps of 2, as without
    assert len({row["job"] for row in used}) == 8


def test_a_stale_update_is_not_used_and_says_why(tmp_path: Path) -> None:
    speeds = tmp_path / "speeds.csv"
    speeds.write_text("client,seconds\n" + "".join(f"{client},{8 if client == 0 else 1}\n" for client in range(6)))
    overrides = f"{BUFFERED} federation.client_speed=from_file federation.client_speed.path={speeds}"
    directory = run_in_process(
        tmp_path / "run", f"{overrides} rounds.max_staleness=3 federation.num_rounds=60 rounds.concurrency=6"
    )
    slow = [row for row in lines(directory, "clients.jsonl") if row["client"] == 0]
    assert slow
    assert all(row["staleness"] > 3 and row["weight"] == 0 for row in slow)
    assert slow[0]["unused"].startswith(f"stale: its model was {slow[0]['staleness']} steps old")
    assert not any(row["rejected"] for row in slow)
    fast = [row for row in lines(directory, "clients.jsonl") if row["client"] != 0]
    assert all(row["staleness"] <= 3 for row in fast)


@pytest.mark.parametrize("virtual", [True, False], ids=["virtual", "real"])
def test_a_client_that_never_answers_delays_nobody(virtual: bool, tmp_path: Path) -> None:
    """In real time the timeout is minutes, and the run is over long before it."""
    speed = "federation.client_speed=constant" if virtual else ""
    overrides = f"{BUFFERED} {speed} federation.num_rounds=8 federation.round_timeout=600"
    silent: dict[str, Any] = {"tamper": lambda reply: None if client_of(reply) == 1 else reply}
    if virtual:
        speeds = tmp_path / "speeds.csv"
        speeds.write_text("client,seconds\n" + "".join(f"{c},{601 if c == 1 else 1}\n" for c in range(6)))
        overrides = overrides.replace("constant", f"from_file federation.client_speed.path={speeds}")
        silent = {}
    directory = run_in_process(tmp_path / "run", overrides, 6, **silent)
    assert summary(directory)["rounds"] == 8
    asked = [row for row in lines(directory, "arrivals.jsonl") if row.get("client") == 1]
    assert [row["event"] for row in asked] == ["asked"]  # still waited for, and never asked again meanwhile
    if virtual:
        assert json.loads((directory / "metrics.jsonl").read_text().splitlines()[-1])["virtual_seconds"] < 10


def test_a_reply_that_does_not_come_in_time_frees_its_place(tmp_path: Path) -> None:
    overrides = f"{BUFFERED} federation.round_timeout=0.15 federation.num_rounds=5 federation.exclude_after=null"
    directory = run_in_process(
        tmp_path / "run",
        f"{overrides} rounds.concurrency=1 rounds.buffer_size=2",
        6,
        tamper=lambda reply: None if client_of(reply) == 1 else reply,
    )
    lost = [row for row in lines(directory, "clients.jsonl") if row["client"] == 1]
    assert summary(directory)["rounds"] == 5
    assert all(row["rejected"] == "no reply in time" for row in lost)


def test_too_few_good_updates_change_nothing_and_end_the_run(tmp_path: Path) -> None:
    """One of six clients is sound, and federation.min_clients is two."""
    overrides = f"{VIRTUAL} federation.max_failed_rounds=2"
    with pytest.raises(FederationError, match="2 rounds in a row"):
        run_in_process(tmp_path / "run", overrides, 6, tamper=lambda r: changed(r, float("inf")) if client_of(r) else r)
    rows = lines(tmp_path / "run", "clients.jsonl")
    assert len(rows) == 12  # each client once in each round
    assert all(row["weight"] == 0 for row in rows)
    assert all(row["rejected"].startswith("non-finite value") for row in rows if row["client"])
    assert {row["unused"] for row in rows if not row["client"]} == {"nothing was aggregated: too few good replies"}
