"""Whole runs with compressed updates: the same sums under every protocol, in any grouping, resumed, and with hostile
clients; bytes are those of messages."""

import math
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Message
from in_process import InProcessGrid, run_in_process, run_on
from safetensors import safe_open
from secure_runs import SMALL, lines, rows, summary

from fedapp.aggregation.plain.packed_levels import LEVEL, LevelSum, levels_in
from fedapp.common.errors import ConfigError
from fedapp.config import compose
from fedapp.flower.serde import to_bytes
from fedapp.learning.build import build_parts
from fedapp.server.check_config import check_config
from fedapp.updates.steps import steps_of
from fedapp.wire.records import ARRAYS, arrays_to_state, state_to_arrays
from fedapp.wire.reply import Reply, pack_reply, unpack_reply

PLAIN = SMALL.replace("secaggplus", "none") + " federation.final_evaluation=false"
CODECS = {
    **{f"quantise {bits}": f" compression=quantise compression.bits={bits}" for bits in (8, 4, 2, 1)},
    "drive": " compression=drive",
    "top_k": " compression=top_k compression.share=0.1 compression.warm_up_rounds=0",
}
UNEVEN = " partition=size_skewed"


def sha256(directory: Path) -> str:
    return str(summary(directory)["model_sha256"])


# --- sums ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("bits", [8, 2, 1])
@pytest.mark.parametrize("protocol", ["secaggplus", "helper", "bfv", "paillier"])
def test_sums_are_the_same_bit_for_bit_in_the_clear_and_under_masks(protocol: str, bits: int, tmp_path: Path) -> None:
    """Clients of different weights."""
    if (package := {"bfv": "tenseal", "paillier": "phe"}.get(protocol)) is not None:
        pytest.importorskip(package)
    codec = CODECS[f"quantise {bits}"] + UNEVEN
    plain = run_in_process(tmp_path / "plain", PLAIN + codec, 3)
    secret = run_in_process(tmp_path / "secret", SMALL.replace("secaggplus", protocol) + codec, 3)
    assert len({row["num_examples"] for row in lines(plain, "clients.jsonl")}) > 1
    assert sha256(secret) == sha256(plain)
    ours, theirs = lines(secret, "metrics.jsonl")[-1], lines(plain, "metrics.jsonl")[-1]
    assert ours["beyond_range"] == theirs["beyond_range"]
    assert ours["train_loss"] == pytest.approx(theirs["train_loss"], abs=1e-3)
    assert ours["val_accuracy"] == pytest.approx(theirs["val_accuracy"], abs=0.02)  # weighted as updates are


@pytest.mark.slow
@pytest.mark.parametrize(("nodes", "shuffle"), [(2, None), (6, 7)])
@pytest.mark.parametrize("codec", CODECS)
def test_the_same_model_for_any_number_of_supernodes_and_any_order(
    codec: str, nodes: int, shuffle: int | None, tmp_path: Path
) -> None:
    one = run_in_process(tmp_path / "one", PLAIN + CODECS[codec], 1)
    other = run_in_process(tmp_path / "other", PLAIN + CODECS[codec], nodes, shuffle=shuffle)
    assert sha256(other) == sha256(one)
    assert summary(one)["test_accuracy"] > 0.2
    with safe_open(one / "model.safetensors", framework="pt") as file:
        constants = [name for name in file.keys() if name.rpartition(".")[2] in ("offset", "scale")]  # noqa: SIM118
        assert sorted(float(file.get_tensor(name)) for name in constants) == [0.0, 16.0]  # of digits' input layer


def test_a_sum_of_levels_is_exact_and_takes_as_few_bits_as_it_needs() -> None:
    random = np.random.default_rng(0)
    template = {"w": torch.zeros(7, 11), "b": torch.zeros(3)}
    for bits, clients in ((8, 1), (8, 5), (1, 1), (1, 9), (2, 3)):
        half, total, expected = 2 ** (bits - 1), LevelSum(bits), np.zeros(80, np.int64)
        for _ in range(clients):
            levels = random.integers(-half, half, 80)
            expected += levels
            vector = torch.from_numpy(levels.astype(np.float32))
            total.add({"w": vector[:77].reshape(7, 11), "b": vector[77:]})
        packed = total.packed()
        found = levels_in(packed, clients, bits, template)
        flat = torch.cat([found["w"].reshape(-1), found["b"]]).double() * 2.0**-42 / LEVEL
        assert flat.tolist() == expected.tolist()
        width = bits + math.ceil(math.log2(clients))
        assert len(packed["levels"]) <= 80 * width / 8


# --- bytes --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["", *CODECS])
def test_bytes_of_a_round_are_those_on_the_wire(codec: str, tmp_path: Path) -> None:
    """Each client's message as Flower serialises it is what is counted and less than 1500 bytes of reports and names;
    what is counted holds what the codec makes, and a NumPy header."""
    overrides = PLAIN + CODECS.get(codec, "")
    grid = InProcessGrid(overrides, 6)
    directory = run_on(grid, tmp_path / "run", overrides)
    told = [line["bytes_up"] for line in lines(directory, "metrics.jsonl")[1:]]
    replies = [m for m in grid.received if m.metadata.message_type == "train"]
    for server_round, counted in enumerate(told, start=1):
        sent = [m for m in replies if m.metadata.group_id == str(server_round)]
        transported = sum(len(to_bytes(message.content)) for message in sent)
        assert len(sent) == 6
        assert counted < transported < counted + 6 * 1500
    values = 652  # with mean and deviation of the input
    expected = {
        "": 4 * values + 4 * 128,  # a header for each tensor
        "quantise 8": values + 2,
        "quantise 4": (values + 4) / 2,
        "quantise 2": (values + 8) / 4,
        "quantise 1": (values + 16) / 8,
        "drive": 8 + 4 * 3 + (512 + 128 + 64) / 8,
        "top_k": 4 + 2 * 3 + 2 * 66,
    }[codec]
    assert told[0] / 6 == pytest.approx(expected, abs=2)


# --- resumed ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["quantise 2", "drive", "top_k"])
def test_a_resumed_run_ends_with_the_same_model(codec: str, tmp_path: Path) -> None:
    """Also with residuals of a later round than that from which it goes on, and in other SuperNodes."""
    overrides = PLAIN.replace("num_rounds=2", "num_rounds=4") + CODECS[codec]
    whole = run_in_process(tmp_path / "whole", f"{overrides} run.output_dir={tmp_path / 'whole'}", 2)
    place = tmp_path / "parts"
    run_in_process(place, f"{overrides.replace('num_rounds=4', 'num_rounds=3')} run.output_dir={place}", 2)
    middle = place / "checkpoint" / "round-00002.safetensors"
    again = run_in_process(place, f"{overrides} run.output_dir={place} run.resume={middle}", 3)
    assert sha256(again) == sha256(whole)


@pytest.mark.slow
def test_residuals_that_are_gone_stop_a_resumed_run(tmp_path: Path) -> None:
    place = tmp_path / "run"
    overrides = f"{PLAIN}{CODECS['top_k']}"
    run_in_process(place, overrides, 2)  # no client of it knows the run directory
    more = overrides.replace("num_rounds=2", "num_rounds=3")
    with pytest.raises(Exception, match="keeps state on the clients"):
        run_in_process(place, f"{more} run.output_dir={place} run.resume=auto", 2)


def test_a_new_run_that_may_be_resumed_starts(tmp_path: Path) -> None:
    """run.resume=auto in a new directory, with residuals; and it goes on from there."""
    place = tmp_path / "run"
    overrides = f"{PLAIN}{CODECS['top_k']} run.output_dir={place} run.resume=auto"
    run_in_process(place, overrides, 2)
    run_in_process(place, overrides.replace("num_rounds=2", "num_rounds=3"), 2)
    assert summary(place)["status"] == "finished"
    assert summary(place)["rounds"] == 3


# --- hostile clients ----------------------------------------------------------------------------------------------


def changed(reply: Message, name: str, content: bytes | None, start: int = 0) -> Message:
    """A reply to train of SuperNode 100, some bytes of whose record `name` are others; None: one is missing."""
    if reply.metadata.src_node_id != 100 or reply.metadata.message_type != "train":
        return reply
    state = arrays_to_state(reply.content.array_records[name])
    ((key, vector),) = state.items()
    if content is not None:
        vector[start : start + len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    reply.content[name] = state_to_arrays({key: vector[:-1] if content is None else vector})
    return reply


HOSTILE = {
    "level too high": ("quantise 8", ARRAYS, b"\xff" * 8192, "a level of 1023, and the highest of 3 clients is 765"),
    "levels missing": ("quantise 2", ARRAYS, None, r"bad reply: uint8 \(\d+,\) for 660 values of 4 bits"),
    "scale": ("drive", f"{ARRAYS}-0", struct.pack("<f", math.nan), "bad drive: a scale of nan"),
    "bits missing": ("drive", f"{ARRAYS}-0", None, "bad drive: .*which take"),
    "index": ("top_k", f"{ARRAYS}-0", b"\xff" * 12, "bad top_k: a scale of nan"),
    "values missing": ("top_k", f"{ARRAYS}-0", None, "bad top_k: 141 bytes, and 66 of 652 values take 142"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_reply_is_rejected_by_name_and_the_run_goes_on(case: str, tmp_path: Path) -> None:
    codec, name, content, why = HOSTILE[case]
    start = 8 if codec == "drive" else 0

    def tamper(reply: Message) -> Message:
        length = 0
        if content is not None and name in reply.content.array_records:
            length = len(next(iter(arrays_to_state(reply.content.array_records[name]).values()))) - start
        return changed(reply, name, content if content is None else content[:length], start)

    directory = run_in_process(tmp_path / "run", PLAIN + CODECS[codec], 2, tamper=tamper)
    found = summary(directory)
    assert found["status"] == "finished"
    bad = {client: row["rejected"] for client, row in rows(directory, 1).items() if row["rejected"]}
    assert set(bad) == ({0, 2, 4} if name == ARRAYS else {0})
    for reason in bad.values():
        assert re.search(why, reason), reason


def test_a_single_update_in_place_of_levels_is_rejected_by_name(tmp_path: Path) -> None:
    """It would move the sum by as much as it likes."""

    def tamper(message: Message) -> Message:
        if message.metadata.src_node_id == 100 and message.metadata.message_type == "train":
            reply = unpack_reply(message.content)
            form = {"weight": torch.full((10, 64), 1000.0), "bias": torch.full((10,), 1000.0)}
            pack = pack_reply(Reply(reply.reports, {reply.reports[0].client: form}))
            message.content = pack
        return message

    overrides = PLAIN.replace("num_rounds=2", "num_rounds=1") + CODECS["quantise 8"]
    run_in_process(tmp_path / "run", overrides, 6, tamper=tamper)
    bad = {client: row["rejected"] for client, row in rows(tmp_path / "run", 1).items() if row["rejected"]}
    assert bad == {0: "bad reply: no packed levels"}


# --- what goes together -------------------------------------------------------------------------------------------


def names(overrides: str) -> list[str]:
    checked = check_config(compose(overrides.split()))
    return [type(step).__name__ for step in checked.steps.steps]


CLIENT_DP = "privacy=client_dp privacy.noise_multiplier=1 federation.num_clients=30 model=logistic_regression"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("compression=none", []),
        ("compression=quantise", ["SummedLevels"]),
        ("compression=quantise secure_aggregation=secaggplus federation.final_evaluation=false", ["SummedLevels"]),
        ("compression=quantise strategy=median federation.num_clients=5", ["OwnLevels"]),
        ("compression=quantise strategy.max_update_norm=9", ["NormLimit", "OwnLevels"]),
        ("compression=drive strategy.max_update_norm=9", ["NormLimit", "Drive"]),
        (f"{CLIENT_DP} compression=quantise", ["CentralStep", "OwnLevels"]),
        (f"{CLIENT_DP} compression=drive", ["CentralStep", "Drive"]),
        (f"{CLIENT_DP} compression=top_k compression.error_feedback=false", ["CentralStep", "LargestValues"]),
    ],
)
def test_limits_and_noise_come_before_compression(overrides: str, expected: list[str]) -> None:
    more = "train.val_fraction=0 federation.final_evaluation=false federation.min_clients=1"
    more += " federation.exclude_after=null"
    given = f"{overrides} {more}" if "client_dp" in overrides else overrides
    assert names(given) == expected


SECRET = "secure_aggregation=secaggplus federation.final_evaluation=false"
DP_MORE = (
    "train.val_fraction=0 federation.final_evaluation=false federation.min_clients=1 federation.exclude_after=null"
)


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (f"{SECRET} compression=drive", "cannot be summed"),
        (f"{SECRET} compression=top_k", "cannot be summed"),
        (f"{CLIENT_DP} {DP_MORE} compression=top_k", "error feedback"),
        (f"{CLIENT_DP} {DP_MORE} {SECRET} compression=quantise", "whole numbers with noise"),
        (
            "secure_aggregation=helper secure_aggregation.sum_to=clients federation.deliver=true"
            " federation.final_evaluation=false compression=quantise",
            "compression._target_",
        ),
        ("compression=top_k strategy.max_update_norm=9", "compression.error_feedback=true: .*max_update_norm=9"),
        ("compression=quantise compression.first_norm=20 compression.largest_norm=16", "below compression.first_norm"),
        ("compression=quantise compression.bits=3", "must be one of 8, 4, 2, 1"),
        ("compression=top_k compression.share=0", "compression.share"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(overrides: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as error:
        check_config(compose(overrides.split()))
    assert "compression" in str(error.value)


def test_a_sum_needs_log2_of_the_cohort_more_bits_and_no_more() -> None:
    config = compose([*SECRET.split(), "compression=quantise", "compression.bits=2"])
    checked = check_config(config)
    numbers = checked.protocol.settings.of(steps_of(config).level_bits)  # type: ignore[attr-defined]
    for cohort, bits in ((2, 3), (10, 6), (64, 8), (65, 9), (1000, 12)):
        assert numbers.at(cohort).modulus_bits == bits
        assert numbers.at(cohort).largest_sum(cohort) <= 2 ** (bits - 1)
    assert build_parts(config).is_whole


# --- under DP-SGD -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["quantise 2", "top_k"])
def test_dp_sgd_costs_the_same_with_a_codec(codec: str, tmp_path: Path) -> None:
    """Compression is post-processing of what has its noise already."""
    private = f"{PLAIN} privacy=dp_sgd train.val_fraction=0"
    spent = []
    for name, more in (("without", ""), ("with", CODECS[codec])):
        directory = run_in_process(tmp_path / name, private + more, 2)
        assert summary(directory)["status"] == "finished"
        spent.append([row["epsilon"] for row in lines(directory, "clients.jsonl") if row.get("epsilon")])
    assert spent[0] == spent[1] != []
