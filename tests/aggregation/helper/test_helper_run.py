"""Whole runs through a helper site, in this process: what they compute, what they cost, and who goes missing."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message, RecordDict
from in_process import InProcessGrid, run_in_process, run_on
from own_keys import node_configs, write_keys
from safetensors.torch import load_file
from secure_runs import QUICK, SMALL, lines, rows, summary

from fedapp.aggregation.helper import client as client_half
from fedapp.aggregation.helper.sealed_model import open_sealed_model
from fedapp.aggregation.protocol import protocol_of
from fedapp.common.errors import ConfigError, FederationError
from fedapp.common.state_digest import state_sha256
from fedapp.config import compose
from fedapp.learning.build import build_parts
from fedapp.privacy.limits import OwnLimits
from fedapp.server.check_config import check_config
from fedapp.updates.steps import UpdateSteps
from fedapp.wire.records import arrays_to_state

HELPER = SMALL.replace("secaggplus", "helper")
TO_CLIENTS = f"{HELPER} secure_aggregation.sum_to=clients federation.deliver=true"
SHORT = " secure_aggregation.helper_timeout=0.2 federation.round_timeout=0.5 federation.exclude_after=null"
SealedRun = tuple[InProcessGrid, Path, dict[str, list[bytes]]]
SITE = 106  # the SuperNode that plays the helper, of seven


def stage(message: Message) -> str:
    """Of a question; a reply names none, and is known by what it holds."""
    if message.has_error() or "protocol" not in message.content.config_records:
        return ""
    return str(message.content.config_records["protocol"]["stage"])


def devices(folder: Path, count: int, **more: Any) -> list[dict[str, Any]]:
    """Sites that sign and pin the helper, and the helper, which has pinned them."""
    write_keys(folder, count + 1)
    configs = node_configs(folder, count + 1)
    for config in configs[:count]:
        del config["peers"]
        config |= {"helper": str(folder / "keys" / f"{count}.pub"), **more}
    configs[count] |= {"role": "helper", "keep-path": str(folder / "kept")}
    return configs


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_in_process(tmp_path_factory.mktemp("secure") / "run", SMALL)


@pytest.fixture(scope="module")
def through_helper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_in_process(tmp_path_factory.mktemp("helper") / "run", HELPER, 3)


def test_it_computes_what_secaggplus_computes(secure: Path, through_helper: Path) -> None:
    assert summary(through_helper)["model_sha256"] == summary(secure)["model_sha256"]
    assert (
        lines(through_helper, "metrics.jsonl")[-1]["val_accuracy"] == lines(secure, "metrics.jsonl")[-1]["val_accuracy"]
    )
    assert summary(through_helper)["supernodes"] == 2  # the helper is none


@pytest.mark.parametrize(("nodes", "more"), [(2, ""), (8, " secure_aggregation.helpers=2")], ids=["one", "two helpers"])
def test_the_same_model_for_any_number_of_supernodes_and_helpers(
    secure: Path, tmp_path: Path, nodes: int, more: str
) -> None:
    found = run_in_process(tmp_path / "run", HELPER + more, nodes, shuffle=3)
    assert summary(found)["model_sha256"] == summary(secure)["model_sha256"]


def test_devices_that_sign_compute_it_too(secure: Path, tmp_path: Path) -> None:
    configs = devices(tmp_path / "sites", 6, **{"min-cohort": 6})
    found = run_in_process(tmp_path / "run", HELPER, node_configs=configs)
    assert summary(found)["model_sha256"] == summary(secure)["model_sha256"]


def test_one_client_message_a_round_and_no_line_about_a_single_client(tmp_path: Path) -> None:
    grid = InProcessGrid(HELPER, 7)
    directory = run_on(grid, tmp_path / "run", HELPER)
    asked = [(m.metadata.dst_node_id, stage(m)) for m in grid.sent if stage(m)]
    assert sorted(asked) == sorted(
        [(100 + client, "masked") for client in range(6)] * 2 + [(SITE, "helper-keys")] + [(SITE, "helper-sum")] * 2
    )
    for row in lines(directory, "clients.jsonl"):
        assert (row["train_loss"], row["val_loss"], row["val_accuracy"], row["seconds"]) == (None,) * 4


def without(node: int, server_round: int, kind: str = "train") -> Callable[[Message], Message | None]:
    """Withholds a SuperNode's replies of one round."""

    def tamper(reply: Message) -> Message | None:
        about = reply.metadata
        gone = (about.src_node_id, about.group_id, about.message_type) == (node, str(server_round), kind)
        return None if gone else reply

    return tamper


def test_a_dropout_costs_its_own_update_alone(tmp_path: Path) -> None:
    found = run_in_process(tmp_path / "run", HELPER + SHORT, 7, tamper=without(102, 2))
    assert [client for client, row in rows(found, 2).items() if row["rejected"]] == [2]
    assert lines(found, "metrics.jsonl")[-1]["replied"] == 5

    def stage_of_reply(reply: Message) -> Message | None:
        masked = not reply.has_error() and "masked" in str(list(reply.content.array_records))
        secure = reply.content.config_records.get("secure") if not reply.has_error() else None
        is_masked = secure is not None and secure["stage"] == "masked"
        gone = (reply.metadata.src_node_id, reply.metadata.group_id) == (102, "2") and (is_masked or masked)
        return None if gone else reply

    theirs = run_in_process(tmp_path / "other", SMALL + QUICK, 6, tamper=stage_of_reply)
    assert summary(found)["model_sha256"] == summary(theirs)["model_sha256"]


def test_a_helper_that_vanishes_costs_the_round_and_is_waited_for(tmp_path: Path, through_helper: Path) -> None:
    found = run_in_process(
        tmp_path / "run", HELPER.replace("num_rounds=2", "num_rounds=3") + SHORT, 7, tamper=without(SITE, 2)
    )
    metrics = lines(found, "metrics.jsonl")
    assert metrics[2]["test_loss"] == metrics[1]["test_loss"] != metrics[3]["test_loss"]
    assert "waiting for it" in metrics[2]["warnings"]["nothing was summed"]
    assert all("nothing was laid bare" in row["unused"] for row in rows(found, 2).values())
    assert all("the sum of round 2 was waiting" in row["unused"] for row in rows(found, 3).values())
    assert summary(found)["model_sha256"] == summary(through_helper)["model_sha256"]


def test_a_sum_that_waited_is_read_by_the_plan_of_its_own_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    on_total = UpdateSteps.on_total

    def noted(self: UpdateSteps, total: Any, weight: float, survivors: Any, plan: Any, rounding: float) -> Any:
        seen.append(plan["step"]["round"])
        return on_total(self, total, weight, survivors, plan, rounding)

    monkeypatch.setattr(UpdateSteps, "plan", lambda _, server_round, weights: {"step": {"round": server_round}})
    monkeypatch.setattr(UpdateSteps, "on_total", noted)
    three = HELPER.replace("num_rounds=2", "num_rounds=3") + SHORT
    run_in_process(tmp_path / "run", three, 7, tamper=without(SITE, 2))
    assert seen == [1, 2]  # in round 3


def test_a_run_without_a_helper_says_what_it_needs(tmp_path: Path) -> None:
    configs = devices(tmp_path / "sites", 2)[:2]
    for config in configs:
        config["num-partitions"] = 3
    quick = f"{HELPER} federation.wait_timeout=0.1".replace("num_clients=6", "num_clients=2")
    with pytest.raises(FederationError, match=r"0 of 1 helper sites are there.*--role helper"):
        run_in_process(tmp_path / "run", quick, node_configs=configs)


def test_a_simulation_with_too_few_supernodes_says_how_many_it_needs(tmp_path: Path) -> None:
    with pytest.raises(FederationError, match=r"to play helper sites; start 2 or more"):
        run_in_process(tmp_path / "run", f"{HELPER} federation.wait_timeout=0.1", 1)


def changed_seed(reply: Message) -> Message:
    """Client 1 seals another seed than it masks with: one that no helper can open."""
    if reply.metadata.src_node_id == 101 and not reply.has_error() and "tags-1" in reply.content.config_records:
        record = reply.content.config_records["tags-1"]
        sealed = record["sealed"][0]  # type: ignore[index]
        record["sealed"] = [bytes(80)] if not isinstance(sealed, bytes) else [sealed[:-1] + bytes([sealed[-1] ^ 1])]
    return reply


def test_a_client_whose_seed_cannot_be_opened_is_named_and_taken_out_of_the_sum(tmp_path: Path) -> None:
    one = HELPER.replace("num_rounds=2", "num_rounds=1") + SHORT
    found = run_in_process(tmp_path / "run", one, 7, tamper=changed_seed)
    assert {client: row["rejected"] for client, row in rows(found, 1).items() if row["rejected"]} == {
        1: "its seed was not sealed for this helper, run and tag"
    }
    gone = run_in_process(tmp_path / "gone", one, 7, tamper=without(101, 1))
    assert summary(found)["model_sha256"] == summary(gone)["model_sha256"]


def junk(reply: Message) -> Message:
    """Client 1 sends noise in place of its vector, under a tag that is sound."""
    if reply.metadata.src_node_id == 101 and not reply.has_error() and "tags-1" in reply.content.config_records:
        array = reply.content.array_records["arrays"]["carried"]
        start = array.data.find(b"\n") + 1
        noise = np.random.default_rng(0).bytes(len(array.data) - start)
        array.data = array.data[:start] + noise
    return reply


def test_a_sum_that_no_cohort_can_have_changes_nothing_and_accuses_nobody(tmp_path: Path) -> None:
    """Nor does the next round, in which the helper has removed these clients' masks for the model."""
    found = tmp_path / "run"
    with pytest.raises(FederationError, match="no round had"):
        run_in_process(found, HELPER + SHORT, 7, tamper=junk)
    first, second, third = lines(found, "metrics.jsonl")
    assert "forged: the sum is none of a cohort of 6" in second["warnings"]["nothing was summed"]
    assert first["test_loss"] == second["test_loss"] == third["test_loss"]
    assert not any(row["rejected"] for number in (1, 2) for row in rows(found, number).values())
    assert all("begin a new run with another run.seed" in row["unused"] for row in rows(found, 2).values())
    assert "begin a new run with another run.seed" in third["warnings"]["nothing was summed"]


def test_a_client_whose_tag_is_not_what_it_signed_is_rejected_before_its_vector_is_added(tmp_path: Path) -> None:
    one = HELPER.replace("num_rounds=2", "num_rounds=1") + SHORT
    found = run_in_process(tmp_path / "run", one, node_configs=devices(tmp_path / "sites", 6), tamper=changed_seed)
    (rejected,) = [row["rejected"] for row in rows(found, 1).values() if row["rejected"]]
    assert rejected == "bad reply: not what its device signed"


def test_a_hostile_supernode_that_says_it_is_the_helper_is_passed_over(secure: Path, tmp_path: Path) -> None:
    configs = devices(tmp_path / "sites", 6)
    write_keys(tmp_path / "other", 7)
    stranger = {**configs[6], "signing-key": str(tmp_path / "other" / "device-6"), "partition-id": 0}
    stranger["keep-path"] = str(tmp_path / "other" / "kept")
    # Put first, so that a client that took the first offer would take its.
    grid = InProcessGrid(HELPER, node_configs=[stranger, *configs])
    found = run_on(grid, tmp_path / "run", HELPER)
    assert summary(found)["model_sha256"] == summary(secure)["model_sha256"]


@pytest.fixture
def with_a_stranger(tmp_path: Path) -> list[dict[str, Any]]:
    """Six devices and their helper, and before them a SuperNode that says it is the helper: its keys come first."""
    configs = devices(tmp_path / "sites", 6)
    write_keys(tmp_path / "other", 7)
    stranger = {**configs[6], "signing-key": str(tmp_path / "other" / "device-6"), "partition-id": 0}
    return [stranger | {"keep-path": str(tmp_path / "other" / "kept")}, *configs]


def test_nor_does_it_stop_sums_under_encryption(with_a_stranger: list[dict[str, Any]], tmp_path: Path) -> None:
    """Ciphertexts are added under the key that clients have taken, and not under the first that was offered."""
    one = SMALL.replace("secaggplus", "bfv").replace("num_rounds=2", "num_rounds=1")
    found = run_in_process(tmp_path / "run", one, node_configs=with_a_stranger)
    assert lines(found, "metrics.jsonl")[-1]["replied"] == 6
    assert not any(row["rejected"] for row in rows(found, 1).values())


def test_a_helper_that_was_silent_is_asked_again_and_no_client_is_blamed(
    with_a_stranger: list[dict[str, Any]], tmp_path: Path
) -> None:
    found = run_in_process(tmp_path / "run", HELPER + SHORT, node_configs=with_a_stranger, tamper=without(107, 1))
    assert not any(row["rejected"] for number in (1, 2) for row in rows(found, number).values())
    assert all(row["unused"].startswith("no helper: 1 of the 1 helpers") for row in rows(found, 1).values())
    assert lines(found, "metrics.jsonl")[-1]["replied"] == 6


def test_a_resumed_run_ends_with_the_same_model(through_helper: Path, tmp_path: Path) -> None:
    directory, configs = tmp_path / "run", devices(tmp_path / "sites", 6)
    first = HELPER.replace("num_rounds=2", "num_rounds=1") + f" run.output_dir={directory}"
    run_in_process(directory, first, node_configs=configs)
    run_in_process(directory, f"{HELPER} run.output_dir={directory} run.resume=auto", node_configs=configs)
    assert summary(directory)["model_sha256"] == summary(through_helper)["model_sha256"]


@pytest.mark.parametrize(
    "more",
    [
        "federation.over_selection=0.5 federation.fraction_train=0.5",
        "strategy.weighting=sqrt strategy.max_update_norm=0.5",
        "privacy=dp_sgd",
    ],
    ids=["over-selection", "weights and norm", "example-level DP"],
)
def test_it_works_together_with(tmp_path: Path, more: str) -> None:
    found = run_in_process(tmp_path / "run", f"{HELPER} {more}", 3)
    assert summary(found)["status"] == "finished"
    assert lines(found, "metrics.jsonl")[-1]["replied"] >= 3


# --- what does not go --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        ("secure_aggregation=helper strategy=median strategy.weighting=uniform", "looks at single updates"),
        ("secure_aggregation=helper federation.final_evaluation=true", "no single client's metrics"),
        ("secure_aggregation=helper secure_aggregation.sum_to=clients", "federation.deliver=false"),
        ("{clients} strategy=fedadam", "strategy.server_optimizer"),
        ("{clients} strategy.server_optimizer.lr=0.5", "strategy.server_optimizer"),
        ("{clients} federation.result=best", "federation.result=best"),
        ("{clients} lr_schedule@server_lr=cosine server_lr.T_max=10", "server_lr"),
    ],
)
def test_what_needs_single_updates_or_the_model_is_refused_by_name(overrides: str, why: str) -> None:
    clients = "secure_aggregation=helper secure_aggregation.sum_to=clients federation.deliver=true"
    with pytest.raises(ConfigError, match=why):
        check_config(compose(overrides.format(clients=clients).split()))


def test_the_arithmetic_of_the_modulus_is_in_the_message() -> None:
    config = compose(["secure_aggregation=helper", "secure_aggregation.bits=31"])
    with pytest.raises(ConfigError, match=r"4 x 1 x \(2\^30 \+ 1\)"):
        protocol_of(config).check_cohort(config, build_parts(config), 4, 4, 4)


def test_a_device_refuses_without_a_pinned_helper_and_a_helper_without_peers(tmp_path: Path) -> None:
    config = compose(["secure_aggregation=helper"])
    protocol, parts = protocol_of(config), build_parts(config)
    with pytest.raises(ConfigError, match="helper: secure_aggregation=helper needs the helper's public key"):
        protocol.client(config, parts, OwnLimits(max_epsilon=8.0))
    with pytest.raises(ConfigError, match="peers: a helper site needs the public keys"):
        protocol.helper(config, parts, OwnLimits(of_helper=True), None)
    folder = write_keys(tmp_path / "keys", 3)
    both = OwnLimits(max_epsilon=8.0, helper=folder / "keys", signing_key=folder / "device-0")
    with pytest.raises(ConfigError, match="this site pins 3 helpers, the run has 1"):
        protocol.client(config, parts, both)


# --- the sum is the clients' -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SealedRun]:
    """A run of devices whose model the server never has; and its secrets."""
    folder = tmp_path_factory.mktemp("sealed")
    secrets: dict[str, list[bytes]] = {"seed": []}
    made = client_half.new_seed

    def noted() -> bytes:
        secrets["seed"].append(made())
        return secrets["seed"][-1]

    patch = pytest.MonkeyPatch()
    patch.setattr(client_half, "new_seed", noted)
    grid = InProcessGrid(TO_CLIENTS, node_configs=devices(folder / "sites", 6))
    directory = run_on(grid, folder / "run", TO_CLIENTS)
    yield grid, directory, secrets
    patch.undo()


def opened(folder: Path) -> tuple[bytes, dict[str, torch.Tensor]]:
    """The key of the one run that a helper keeps, and its newest model."""
    from fedapp.aggregation.helper.run_store import RunStore

    (file,) = folder.glob("run-*.sealed")
    kept = RunStore(folder).load(file.name[4:20], RecordDict())
    assert kept is not None
    return kept.key, open_sealed_model(kept.sealed, kept.key)


def test_the_clients_model_is_the_one_that_a_server_would_have(secure: Path, sealed: SealedRun) -> None:
    _, directory, _ = sealed
    _, model = opened(directory.parent / "sites" / "kept" / "helper")
    theirs = load_file(secure / "model.safetensors")
    assert model.keys() <= theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in model.items())
    assert summary(directory)["model_sha256"] == state_sha256(model)


def test_the_server_has_no_seed_no_key_and_no_weight(
    sealed: SealedRun,
) -> None:
    grid, directory, secrets = sealed
    key, model = opened(directory.parent / "sites" / "kept" / "helper")
    weights = [value.numpy().tobytes()[start : start + 16] for value in model.values() for start in (0, 64)]
    question = next(m for m in grid.sent if stage(m) == "masked")
    first = b"".join(array.data for array in question.content["arrays"].values())  # public; some of it stays
    markers = [*secrets["seed"], key, key.hex().encode(), *(found for found in weights if found not in first)]
    assert len(markers) > 14
    assert len(secrets["seed"]) == 12
    seen = [message.content for message in (*grid.sent, *grid.received) if message.has_content()]
    held = [array.data for content in seen for record in content.array_records.values() for array in record.values()]
    for content in seen:
        for record in content.config_records.values():
            for value in record.values():
                items = value if isinstance(value, list) else [value]
                held += [item if isinstance(item, bytes) else str(item).encode() for item in items]
    held += [file.read_bytes() for file in directory.rglob("*") if file.is_file()]
    assert sum(map(len, held)) > 100_000
    for marker in markers:
        assert not any(marker in found for found in held)


def test_no_file_of_the_run_holds_a_model(sealed: SealedRun) -> None:
    _, directory, _ = sealed
    assert not list(directory.glob("*.safetensors"))
    assert "test_accuracy" not in lines(directory, "metrics.jsonl")[-1]
    assert lines(directory, "metrics.jsonl")[-1]["val_accuracy"] > 0.5


def test_a_run_with_sealed_models_is_resumed_to_the_same_model(tmp_path: Path, sealed: SealedRun) -> None:
    directory, configs = tmp_path / "run", devices(tmp_path / "sites", 6)
    first = TO_CLIENTS.replace("num_rounds=2", "num_rounds=1") + f" run.output_dir={directory}"
    run_in_process(directory, first, node_configs=configs)
    run_in_process(directory, f"{TO_CLIENTS} run.output_dir={directory} run.resume=auto", node_configs=configs)
    assert summary(directory)["model_sha256"] == summary(sealed[1])["model_sha256"]


def test_a_model_whose_answer_was_lost_is_taken_over(sealed: SealedRun, tmp_path: Path) -> None:
    """As by a run that was killed between the helper's answer and its checkpoint, and resumed."""
    three = TO_CLIENTS.replace("num_rounds=2", "num_rounds=3") + SHORT
    configs = devices(tmp_path / "sites", 6)
    found = run_in_process(tmp_path / "run", three, node_configs=configs, tamper=without(SITE, 2))
    taken = "the helper had summed this round, and its answer was lost"
    assert lines(found, "metrics.jsonl")[3]["warnings"] == {"round taken over": taken}
    assert summary(found)["model_sha256"] == summary(sealed[1])["model_sha256"]


def test_two_helpers_and_a_model_of_the_clients(sealed: SealedRun, tmp_path: Path) -> None:
    folder = write_keys(tmp_path / "sites", 8)
    configs = node_configs(folder, 8)
    (folder / "pinned").mkdir()
    for number in (6, 7):
        (folder / "pinned" / f"{number}.pub").write_bytes((folder / "keys" / f"{number}.pub").read_bytes())
        configs[number] |= {"role": "helper", "keep-path": str(folder / f"kept-{number}")}
    for config in configs[:6]:
        del config["peers"]
        config["helper"] = str(folder / "pinned")
    found = run_in_process(tmp_path / "run", f"{TO_CLIENTS} secure_aggregation.helpers=2", node_configs=configs)
    assert summary(found)["model_sha256"] == summary(sealed[1])["model_sha256"]
    assert list((folder / "kept-6" / "helper").glob("run-*.sealed"))
    assert not (folder / "kept-7" / "helper").exists()


def test_an_older_model_is_refused_by_clients(tmp_path: Path) -> None:
    """A server that sends round 1's sealed model, or the first one, in a later round gets nothing for it."""
    three = TO_CLIENTS.replace("num_rounds=2", "num_rounds=3") + SHORT
    grid = InProcessGrid(three, node_configs=devices(tmp_path / "sites", 6))
    kept: dict[str, Any] = {}
    deliver = grid._deliver

    def replay(number: str, message: Message) -> None:
        content = message.content
        if stage(message) == "masked":
            kept.setdefault(message.metadata.group_id, content["arrays"])
            if message.metadata.group_id == "3":
                content["arrays"] = kept["2" if message.metadata.dst_node_id == 100 else "1"]
        deliver(number, message)

    grid._deliver = replay  # type: ignore[method-assign]
    found = run_on(grid, tmp_path / "run", three)
    third = [row for row in lines(found, "clients.jsonl") if row["round"] == 3 and "phase" not in row]
    reasons = {row["client"]: row["rejected"] for row in third}
    assert [client for client, why in reasons.items() if why and "version 0 of the model, after version 1" in why] == [
        1,
        2,
        3,
        4,
        5,
    ]
    assert arrays_to_state(kept["2"]).keys() == {"sealed-model", "sealed-about"}
