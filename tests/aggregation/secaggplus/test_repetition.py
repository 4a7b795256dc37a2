"""No device reveals shares twice for one model and different sums, and no server is left without a way on."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message
from in_process import InProcessGrid, run_on
from own_keys import write_keys
from secure_rounds import play
from secure_runs import lines, rows, stage, summary

from fedapp.aggregation.secaggplus.cohort_view import CohortView
from fedapp.aggregation.secaggplus.repetition import FILE, Repetitions
from fedapp.aggregation.secaggplus.settings import Settings
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.common.errors import ConfigError, FederationError
from fedapp.config import compose
from fedapp.config.same_maths import maths_sha256
from fedapp.deploy.run import with_seed


@pytest.fixture(scope="module")
def view() -> CohortView:
    return replace(play(5, Settings(bits=12), upto="keys").server.close_keys(), model="a" * 64, work="b" * 64)


@pytest.fixture
def store(tmp_path: Path) -> Repetitions:
    return Repetitions(tmp_path / "keep")


def refused(words: str, call: Callable[..., object], *arguments: object) -> None:
    with pytest.raises(ProtocolError, match=f"^repetition: .*{words}"):
        call(*arguments)


def test_a_model_is_summed_over_again_for_the_same_clients_weights_and_work(
    store: Repetitions, view: CohortView
) -> None:
    store.note(view, [0, 1, 2, 4])
    store.note(replace(view, server_round=9), [4, 2, 1, 0])  # of another round, as after a failed one
    refused("same clients", store.note, view, [0, 1, 2, 3, 4])
    refused("same clients", store.note, view, [0, 1, 2])
    refused("another instruction", store.note, replace(view, work="c" * 64), [0, 1, 2, 4])
    others = [replace(m, weight=0.1 if m.client == 1 else 0.225) for m in view.members]
    refused("same clients", store.note, replace(view, members=tuple(others)), [0, 1, 2, 4])
    store.note(replace(view, model="d" * 64), [0, 1, 2])
    refused("same clients", store.note, view, [0, 1, 2])  # an entry stays, whatever came after it


def test_weights_count_among_those_who_survive(store: Repetitions, view: CohortView) -> None:
    """Who dropped out before the sum has no share in it, in whichever round."""
    store.note(view, [0, 1, 2, 4])
    four = tuple(replace(m, weight=0.25) for m in view.members if m.client != 3)
    store.note(replace(view, members=four), [0, 1, 2, 4])


def test_it_is_refused_before_anybody_trains(store: Repetitions, view: CohortView) -> None:
    store.check(view, range(5))
    store.note(view, [0, 1, 2, 4])
    store.check(view, range(5))
    refused("same clients", store.check, view, [0, 1, 2, 3])
    refused("another instruction", store.check, replace(view, work="c" * 64), range(5))


def test_a_full_store_refuses_and_evicts_nothing(store: Repetitions, view: CohortView) -> None:
    store.note(view, range(5))
    size = (store.folder / FILE).stat().st_size
    small = Repetitions(store.folder, most_bytes=size + 10)
    refused("full", small.note, replace(view, model="d" * 64), range(5))
    small.note(view, range(5))
    refused("same clients", small.note, view, [0, 1, 2])
    assert (store.folder / FILE).stat().st_size == size


def test_what_was_cut_off_by_a_crash_goes_and_what_is_damaged_is_not_ignored(
    store: Repetitions, view: CohortView
) -> None:
    store.note(view, range(5))
    file = store.folder / FILE
    whole = file.read_bytes()
    file.write_bytes(whole + whole.replace(b"a", b"d")[:-9])
    store.note(replace(view, model="d" * 64), range(4))
    assert file.read_bytes().count(b"\n") == 2
    file.write_bytes(b"\0" * 40 + b"\n" + whole)
    refused("damaged", store.note, view, range(5))
    file.unlink()
    file.mkdir()
    refused("cannot be read or written", store.note, view, range(5))


def test_nobody_else_reads_the_store(store: Repetitions, view: CohortView) -> None:
    store.note(view, range(5))
    assert (store.folder / FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_what_does_not_change_a_round_is_no_other_config() -> None:
    base = compose(["secure_aggregation=secaggplus"])
    free = {"secure_aggregation.keys_timeout"}
    for same in ("run.resume=auto", "federation.num_rounds=7", "secure_aggregation.keys_timeout=9"):
        assert maths_sha256(compose(["secure_aggregation=secaggplus", same]), free) == maths_sha256(base, free)
    for other in ("optimizer.lr=0.2", "run.seed=3", "secure_aggregation.clip=3"):
        assert maths_sha256(compose(["secure_aggregation=secaggplus", other]), free) != maths_sha256(base, free)


# --- whole runs of devices ----------------------------------------------------------------------------------------

TASK = (
    "data=csv data.label=ill data.numeric=[age] data.categorical={} data.classes=[no,yes] data.scaling=none"
    " model=logistic_regression train.val_fraction=0 federation.num_rounds=2 federation.fraction_train=1"
    " secure_aggregation=secaggplus federation.min_clients=2 federation.exclude_after=null federation.wait_timeout=1"
    " secure_aggregation.keys_timeout=0.2 secure_aggregation.shares_timeout=0.2 secure_aggregation.masked_timeout=0.2"
    " secure_aggregation.consistency_timeout=0.2 secure_aggregation.unmask_timeout=0.2"
)


@pytest.fixture
def devices(tmp_path: Path) -> list[dict[str, Any]]:
    """Four that pin each other."""
    write_keys(tmp_path / "devices", 4)
    for number in range(4):
        with (tmp_path / f"{number}.csv").open("w", newline="") as file:
            rows = (((i * 7 + number) % 20, ("no", "yes")[i % 2]) for i in range(20))
            csv.writer(file).writerows([("age", "ill"), *rows])
    return [
        {
            "data-path": str(tmp_path / f"{number}.csv"),
            "partition-id": number,
            "signing-key": str(tmp_path / "devices" / f"device-{number}"),
            "peers": str(tmp_path / "devices" / "keys"),
            "min-cohort": 3,
            "keep-path": str(tmp_path / "keep" / str(number)),
        }
        for number in range(4)
    ]


def silent(*clients: int, server_round: str, last: str) -> Callable[[Message], Message | None]:
    """Withholds the replies of these clients to a stage of a round."""

    def tamper(reply: Message) -> Message | None:
        about = reply.metadata
        mine = about.group_id == server_round and about.src_node_id - 100 in clients and stage(reply) == last
        return None if mine else reply

    return tamper


def noted(devices: list[dict[str, Any]], client: int) -> list[dict[str, Any]]:
    file = Path(devices[client]["keep-path"]) / FILE
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_round_that_revealed_shares_and_changed_nothing_is_repeated_with_its_survivors(
    devices: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Client 3 drops out before the sum of round 1, and two others do not tell what they reveal of it."""
    first, second = silent(3, server_round="1", last="masked"), silent(0, 1, server_round="1", last="unmask")
    tamper = lambda reply: first(reply) and second(reply)  # noqa: E731
    grid = InProcessGrid(TASK, node_configs=devices, tamper=tamper)
    directory = run_on(grid, tmp_path / "run", TASK)
    asked = {m.metadata.dst_node_id for m in grid.sent if stage(m) == "keys" and m.metadata.group_id == "2"}
    assert asked == {100, 101, 102}
    assert lines(directory, "metrics.jsonl")[2]["replied"] == 3
    assert [line["survivors"] for line in noted(devices, 0)] == [[0, 1, 2]]


def test_a_run_whose_survivors_do_not_return_ends_and_says_why(devices: list[dict[str, Any]], tmp_path: Path) -> None:
    grid = InProcessGrid(TASK, node_configs=devices)

    def tamper(reply: Message) -> Message | None:
        if stage(reply) == "unmask" and reply.metadata.src_node_id in (100, 101):
            grid.contexts.pop(101, None)
            return None
        return reply

    grid._tamper = tamper  # type: ignore[assignment]
    with pytest.raises(FederationError, match=r"reveal.* shares for this model.*\[1\] are not there"):
        run_on(grid, tmp_path / "run", TASK)
    assert "not there" in summary(tmp_path / "run")["stop_reason"]


@pytest.mark.slow
def test_a_server_that_begins_anew_with_other_clients_gets_no_second_sum(
    devices: list[dict[str, Any]], tmp_path: Path
) -> None:
    once = TASK.replace("num_rounds=2", "num_rounds=1")
    run_on(InProcessGrid(once, node_configs=devices), tmp_path / "first", once)
    gone = silent(3, server_round="1", last="keys")
    with pytest.raises(FederationError, match="no round had"):
        run_on(InProcessGrid(once, node_configs=devices, tamper=gone), tmp_path / "second", once)
    assert "repetition: shares were revealed for this model" in rows(tmp_path / "second", 1)[0]["rejected"]
    again = run_on(InProcessGrid(once, node_configs=devices), tmp_path / "third", once)
    assert summary(again)["model_sha256"] == summary(tmp_path / "first")["model_sha256"]
    other = once + " run.seed=5"
    run_on(InProcessGrid(other, node_configs=devices, tamper=gone), tmp_path / "fourth", other)


@pytest.mark.slow  # two runs
def test_a_resumed_run_goes_on(devices: list[dict[str, Any]], tmp_path: Path) -> None:
    once = TASK.replace("num_rounds=2", "num_rounds=1") + f" run.output_dir={tmp_path / 'run'}"
    run_on(InProcessGrid(once, node_configs=devices), tmp_path / "run", once)
    further = f"{TASK} run.output_dir={tmp_path / 'run'} run.resume=auto"
    run_on(InProcessGrid(further, node_configs=devices), tmp_path / "run", further)
    assert len(noted(devices, 0)) == 2


@pytest.mark.slow
def test_the_repetition_is_known_after_a_restart(devices: list[dict[str, Any]], tmp_path: Path) -> None:
    """The checkpoint of the failed round holds whom it must ask again."""
    once = TASK.replace("num_rounds=2", "num_rounds=1") + f" run.output_dir={tmp_path / 'run'}"
    first, second = silent(3, server_round="1", last="masked"), silent(0, 1, server_round="1", last="unmask")
    tamper = lambda reply: first(reply) and second(reply)  # noqa: E731
    with pytest.raises(FederationError):
        run_on(InProcessGrid(once, node_configs=devices, tamper=tamper), tmp_path / "run", once)
    further = f"{TASK} run.output_dir={tmp_path / 'run'} run.resume=auto"
    grid = InProcessGrid(further, node_configs=devices)
    run_on(grid, tmp_path / "run", further)
    assert {m.metadata.dst_node_id for m in grid.sent if stage(m) == "keys"} == {100, 101, 102}


def test_a_device_without_a_folder_takes_no_part(devices: list[dict[str, Any]], tmp_path: Path) -> None:
    for device in devices:
        del device["keep-path"]
    with pytest.raises(FederationError, match="keep-path: under secure aggregation"):
        run_on(InProcessGrid(TASK, node_configs=devices), tmp_path / "run", TASK)


# --- seeds of deployed runs ---------------------------------------------------------------------------------------


def test_deployed_runs_draw_their_seed_unless_one_is_given(tmp_path: Path) -> None:
    drawn = {with_seed(["federation.num_rounds=1"])[-1] for _ in range(3)}
    assert len(drawn) == 3
    assert all(item.startswith("run.seed=") for item in drawn)
    assert with_seed(["run.seed=7"]) == ["run.seed=7"]
    (tmp_path / "config.yaml").write_text("run:\n  seed: 12345\n")
    assert with_seed([f"run.resume={tmp_path}"])[-1] == "run.seed=12345"
    assert with_seed([f"run.output_dir={tmp_path}", "run.resume=auto"])[-1] == "run.seed=12345"
    with pytest.raises(ConfigError, match=r"run\.seed: to go on"):
        with_seed([f"run.resume={tmp_path}"], remote=True)
