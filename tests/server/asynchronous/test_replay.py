"""run.replay: a run takes updates in the order that another one recorded, and ends with its model."""

import json
from pathlib import Path

import pytest
from buffered_runs import BUFFERED, SMALL, changed, client_of, late, lines, sha, summary
from flwr.app import Message
from in_process import run_in_process

from fedapp.common.errors import ConfigError, FederationError

REPLAYED = ["", "strategy=fedadam rounds.refill=after_step", "federation.personal=head model=mlp"]


@pytest.mark.parametrize("options", REPLAYED)
def test_a_recorded_order_is_replayed_bit_for_bit(options: str, tmp_path: Path) -> None:
    overrides = f"{BUFFERED} {options}"
    given = f"{overrides} run.output_dir={tmp_path}/first"
    first = run_in_process(tmp_path / "first", given, 6, delay=late(0))
    other = run_in_process(tmp_path / "other", f"{overrides} run.output_dir={tmp_path}/other", 6, delay=late(1))
    again = f"{overrides} run.output_dir={tmp_path}/again run.replay={first}"
    replayed = run_in_process(tmp_path / "again", again, 2, delay=late(1))
    assert lines(other, "arrivals.jsonl") != lines(first, "arrivals.jsonl")  # else there would be nothing to replay
    assert sha(other) != sha(first)
    assert sha(replayed) == sha(first)
    assert lines(replayed, "arrivals.jsonl") == lines(first, "arrivals.jsonl")


def test_a_replay_leaves_out_what_the_run_did_not_use(tmp_path: Path) -> None:
    """Rejected then, sound now."""

    def spoilt(reply: Message) -> Message:
        return changed(reply, float("nan")) if client_of(reply) in (0, 1, 2) else reply

    first = run_in_process(tmp_path / "first", BUFFERED, 6, tamper=spoilt, delay=late(0))
    assert summary(first)["rejected"] > 0
    replayed = run_in_process(tmp_path / "again", f"{BUFFERED} run.replay={first}")
    assert sha(replayed) == sha(first)
    assert summary(replayed)["rejected"] == summary(first)["rejected"]


def test_a_replay_ends_where_an_update_is_not_to_be_had_again(tmp_path: Path) -> None:
    first = run_in_process(tmp_path / "first", BUFFERED, 6)
    spoilt = f"{BUFFERED} run.replay={first}"
    with pytest.raises(FederationError, match=r"run.replay: client \d, asked in round 1, does not send again"):
        run_in_process(tmp_path / "again", spoilt, 6, tamper=lambda reply: changed(reply, float("nan")))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("optimizer.lr=0.01", r"would compute something else:\n  optimizer.lr=0.01: was 0.05"),
        ("federation.num_rounds=5", r"has 4 recorded rounds, federation.num_rounds=5; set it to 4 or less"),
        ("rounds=synchronous", r"have no order of arrival"),
    ],
)
def test_what_cannot_be_replayed_is_named_before_anything_starts(change: str, said: str, tmp_path: Path) -> None:
    first = run_in_process(tmp_path / "first", BUFFERED)
    overrides = f"{SMALL} run.replay={first}" if "synchronous" in change else f"{BUFFERED} {change} run.replay={first}"
    with pytest.raises(ConfigError, match=said):
        run_in_process(tmp_path / "again", overrides)
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("no json", "line 1: is no event"),
        ('{"round": 1, "event": "asked", "job": 0, "client": "a"}', "line 1: is no event"),
        ('{"round": 1, "event": "ended", "job": 0, "client": 1, "outcome": "eaten"}', "line 1: is no event"),
    ],
)
def test_a_damaged_record_is_named(line: str, said: str, tmp_path: Path) -> None:
    first = run_in_process(tmp_path / "first", BUFFERED)
    path = first / "arrivals.jsonl"
    path.write_text("\n".join([line, *path.read_text().splitlines()[1:]]))
    with pytest.raises(ConfigError, match=said):
        run_in_process(tmp_path / "again", f"{BUFFERED} run.replay={first}")


def test_a_record_without_the_end_of_a_round_is_not_replayed(tmp_path: Path) -> None:
    first = run_in_process(tmp_path / "first", BUFFERED)
    path = first / "arrivals.jsonl"
    kept = [line for line in path.read_text().splitlines() if json.loads(line) != {"round": 2, "event": "over"}]
    path.write_text("\n".join(kept))
    with pytest.raises(FederationError, match=r"run.replay: event \d+ is of a job that this run does not have"):
        run_in_process(tmp_path / "again", f"{BUFFERED} federation.num_rounds=3 run.replay={first}")


@pytest.mark.parametrize("place", ["relative/path", "{}/nowhere"])
def test_a_run_that_is_not_there_is_named(place: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.replay=.*(absolute path|has no recorded order)"):
        run_in_process(tmp_path / "again", f"{BUFFERED} run.replay={place.format(tmp_path)}")


# --- rounds that end short ----------------------------------------------------------------------------------------

SHORT = f"{BUFFERED} federation.exclude_after=null federation.num_rounds=6 federation.max_failed_rounds=9"


def test_a_round_that_ended_short_ends_there_again(tmp_path: Path) -> None:
    """No reply to rounds 2 and 3 is sound, so that in round 3 nobody is left to ask."""

    def spoilt(reply: Message) -> Message:
        bad = client_of(reply) is not None and reply.metadata.group_id in ("2", "3")
        return changed(reply, float("nan")) if bad else reply

    first = run_in_process(tmp_path / "first", SHORT, 6, tamper=spoilt)
    used = [line["replied"] - line["rejected"] for line in lines(first, "metrics.jsonl")[1:]]
    assert min(used) < 2 <= used[-1]
    replayed = run_in_process(tmp_path / "again", f"{SHORT} run.replay={first}", 2)
    assert sha(replayed) == sha(first)
    assert lines(replayed, "arrivals.jsonl") == lines(first, "arrivals.jsonl")


PLAYED = (
    "federation.num_rounds=8 federation.num_clients=6 model=logistic_regression federation.final_evaluation=false"
    " federation.client_speed=lognormal federation.dropout=0.2 federation.round_timeout=1.2 federation.exclude_after=2"
    " federation.exclude_rounds=2 federation.max_failed_rounds=9"
)
BOTH = {
    "synchronous": f"{PLAYED} federation.fraction_train=0.7 federation.over_selection=0.3",
    "buffered": f"{PLAYED} rounds=buffered rounds.concurrency=4 rounds.buffer_size=3",
}


@pytest.mark.parametrize("kind", BOTH)
def test_virtual_time_with_late_and_vanished_clients_is_replayed(kind: str, tmp_path: Path) -> None:
    first = run_in_process(tmp_path / "first", BOTH[kind])
    outcomes = {row.get("outcome") for row in lines(first, "arrivals.jsonl")}
    assert "lost" in outcomes
    replayed = run_in_process(tmp_path / "again", f"{BOTH[kind]} run.replay={first}")
    assert sha(replayed) == sha(first)


def test_what_a_killed_run_recorded_of_a_round_that_is_not_over_counts_for_nothing(tmp_path: Path) -> None:
    first = run_in_process(tmp_path / "first", BUFFERED)
    path = first / "arrivals.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))  # without the end of round 4
    with pytest.raises(ConfigError, match=r"has 3 recorded rounds, federation.num_rounds=4"):
        run_in_process(tmp_path / "again", f"{BUFFERED} run.replay={first}")
    run_in_process(tmp_path / "again", f"{BUFFERED} federation.num_rounds=3 run.replay={first}")


# --- what clients keep, and noise ---------------------------------------------------------------------------------

KEEPING = {
    "error feedback": "compression=top_k compression.share=0.1",
    "personal heads": "federation.personal=head model=mlp",
    "own models": "federation.personal=ditto federation.final_evaluation=true",
}


@pytest.mark.parametrize("options", KEEPING.values(), ids=KEEPING.keys())
def test_what_clients_keep_is_replayed_with_the_work_of_those_who_were_rejected(options: str, tmp_path: Path) -> None:
    """Rejected then, sound now: what the work left with the client has a say in its next update."""
    overrides = f"{BUFFERED} {options} federation.num_rounds=8 federation.exclude_after=null"

    def spoilt(reply: Message) -> Message:
        if client_of(reply) in (0, 1, 2) and int(reply.metadata.group_id) % 2:
            reply.metadata.__dict__["_group_id"] = "77"  # as if to another message
        return reply

    given = f"{overrides} run.output_dir={tmp_path}/first"
    first = run_in_process(tmp_path / "first", given, 6, tamper=spoilt, delay=late(0))
    assert summary(first)["rejected"] > 0
    again = f"{overrides} run.output_dir={tmp_path}/again run.replay={first}"
    replayed = run_in_process(tmp_path / "again", again, 2, delay=late(1))
    assert sha(replayed) == sha(first)


@pytest.mark.parametrize("kind", BOTH)
def test_error_feedback_of_late_clients_is_replayed(kind: str, tmp_path: Path) -> None:
    """Late in one round, and in time in a later one, with what it kept of the first."""
    overrides = f"{BOTH[kind]} federation.client_speed.jitter=1 compression=top_k compression.share=0.1"
    first = run_in_process(tmp_path / "first", f"{overrides} run.output_dir={tmp_path}/first")
    events = lines(first, "arrivals.jsonl")
    late = [(number, row["client"]) for number, row in enumerate(events) if row.get("trained")]
    used = [(number, row["client"]) for number, row in enumerate(events) if row.get("outcome") == "used"]
    assert any(client == other and number < later for number, client in late for later, other in used)
    replayed = run_in_process(tmp_path / "again", f"{overrides} run.output_dir={tmp_path}/again run.replay={first}")
    assert sha(replayed) == sha(first)


def test_a_client_that_may_have_trained_unseen_cannot_be_replayed(tmp_path: Path) -> None:
    overrides = f"{BUFFERED} compression=top_k"
    first = run_in_process(tmp_path / "first", overrides)
    path = first / "arrivals.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()]
    ended = next(
        event
        for number, event in enumerate(events)
        if event["event"] == "ended"
        and any(later["event"] == "asked" and later["client"] == event["client"] for later in events[number:])
    )
    ended["outcome"] = "lost"
    path.write_text("\n".join(map(json.dumps, events)))
    with pytest.raises(ConfigError, match=rf"client {ended['client']} was asked again in round \d after its reply had"):
        run_in_process(tmp_path / "again", f"{overrides} run.replay={first}")


def test_noise_is_not_replayed(tmp_path: Path) -> None:
    overrides = f"{BUFFERED} privacy=dp_sgd privacy.noise_multiplier=1"
    first = run_in_process(tmp_path / "first", overrides)
    with pytest.raises(ConfigError, match=r"run.replay=.*: privacy=dp_sgd draws its noise anew"):
        run_in_process(tmp_path / "again", f"{overrides} run.replay={first}")
