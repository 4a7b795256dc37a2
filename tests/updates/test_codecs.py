"""Codecs: rotations that add nothing, bits that come back, unbiased values, and residuals that lose nothing."""

import math
import struct
from typing import Any

import numpy as np
import pytest
import torch
from codecs_of_updates import PER_REPLY, decoded, summed, vectors
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedapp.updates.drive import Drive
from fedapp.updates.levels import step_of, to_levels
from fedapp.updates.own_levels import OwnLevels
from fedapp.updates.packing import pack_bits, packed_bytes, unpack_bits
from fedapp.updates.per_reply import SEED
from fedapp.updates.rotation import BlockRotation, PaddedRotation, Rotation
from fedapp.updates.step import UpdateRejected
from fedapp.updates.summed_levels import BEYOND, NORM, ROTATION, SummedLevels
from fedapp.updates.top_k import RESIDUAL, SCALE, LargestValues

VECTORS = vectors()

# --- rotation and packing -----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(1, 9000), st.integers(0, 2**63 - 1))
def test_a_rotation_keeps_length_and_norm_and_comes_back(length: int, seed: int) -> None:
    vector = torch.from_numpy(np.random.default_rng(seed).normal(size=length).astype(np.float32))
    rotation = Rotation(length, seed)
    rotated = rotation.forward(vector)
    assert rotated.shape == (length,)
    assert float(rotated.norm()) == pytest.approx(float(vector.norm()), rel=1e-5)
    assert torch.allclose(rotation.backward(rotated), vector, atol=1e-4)
    blocks = BlockRotation(length, seed)
    assert sum(float(block.square().sum()) for block in blocks.forward(vector)) == pytest.approx(
        float(vector.square().sum()), rel=1e-4
    )
    assert torch.allclose(blocks.backward(blocks.forward(vector)), vector, atol=1e-4)
    assert length <= blocks.padded < length + 64
    padded = PaddedRotation(length, seed)
    assert torch.allclose(padded.backward(padded.forward(vector.double())), vector.double())


@pytest.mark.parametrize("name", VECTORS)
def test_a_rotated_vector_has_no_large_entries(name: str) -> None:
    """Of 1000 normal values the largest is above 5 deviations once in 1700 draws."""
    vector = VECTORS[name]
    largest = [float(Rotation(1000, seed).forward(vector).abs().max()) for seed in range(5)]
    assert max(largest) < 5 * float(vector.norm()) / math.sqrt(1000) * 1.2


def test_a_rotation_is_the_same_for_any_number_of_threads() -> None:
    vector, before = torch.randn(300_001, generator=torch.Generator().manual_seed(0)), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(Rotation(len(vector), 1).forward(vector))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 70), st.integers(0, 2**32))
def test_packed_bits_come_back(bits: int, length: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 2**bits, length, dtype=np.uint64)
    packed = pack_bits(values, bits)
    assert len(packed) == packed_bytes(length, bits) <= -(-bits * length // 8) + 7
    assert (unpack_bits(packed, bits, length, "<u8") == values).all()
    with pytest.raises(ValueError, match="which take"):
        unpack_bits(np.append(packed, np.uint8(0)), bits, length, "<u8")


# --- unbiased -----------------------------------------------------------------------------------------------------


def z_scores(found: Tensor, vector: Tensor) -> Tensor:
    """(draws, n) decoded vectors: by direction, how many standard errors their mean is away from the vector. The
    directions are the vector itself and 15 drawn at random."""
    random = torch.from_numpy(np.random.default_rng(9).normal(size=(15, len(vector)))).double()
    directions = torch.cat([vector.double()[None], random])
    projected = (found.double() - vector.double()) @ directions.T  # (draws, 16)
    error = projected.std(0) / math.sqrt(len(found))
    return projected.mean(0) / error.clamp_min(1e-6 * float(vector.norm()) * directions.norm(dim=1))


@pytest.mark.parametrize("vector", VECTORS)
@pytest.mark.parametrize("codec", [name for name in PER_REPLY if name != "top_k"])
def test_what_is_decoded_reply_by_reply_is_unbiased(codec: str, vector: str) -> None:
    """False-alarm rate: 16 directions beyond 5 standard errors of a t distribution with 199 degrees of freedom, 2e-5 a
    case."""
    found = torch.stack([decoded(PER_REPLY[codec], VECTORS[vector], 1000 + seed) for seed in range(200)])
    assert float(z_scores(found, VECTORS[vector]).abs().max()) < 5


@pytest.mark.parametrize("vector", VECTORS)
@pytest.mark.parametrize("bits", [8, 4, 2, 1])
def test_what_is_summed_is_unbiased_within_the_range(bits: int, vector: str) -> None:
    """The planned norm is so large that nothing lies beyond. False-alarm rate as above; the rotation is the same for
    all draws, so that rounding alone must be unbiased."""
    given = VECTORS[vector]
    step = SummedLevels(bits, 4 * float(given.norm()))
    found = torch.stack([summed(step.seeded(0), [given], [1.0], [seed]) for seed in range(200)])
    assert step.seeded(0).plan(1) == step.plan(1)
    assert float(z_scores(found, given).abs().max()) < 5


def test_levels_are_neighbours_of_the_value() -> None:
    values = torch.linspace(-1.2, 1.2, 500)
    for bits in (8, 4, 2, 1):
        step = step_of(bits, 1.0)
        back = (to_levels(values, bits, 1.0, 3) + 0.5) * step
        inside = values.abs() <= 1
        assert float((back - values)[inside].abs().max()) <= step * (1 + 1e-5)
        assert torch.allclose(back[~inside].abs(), torch.ones(int((~inside).sum())))


def test_a_better_codec_has_a_smaller_error() -> None:
    vector = VECTORS["normal"]
    errors = {
        name: float((decoded(codec, vector, 5) - vector).norm() / vector.norm()) for name, codec in PER_REPLY.items()
    }
    assert errors["quantise 8"] < 0.03 < errors["quantise 4"] < 0.5
    assert errors["drive"] == pytest.approx(math.sqrt(math.pi / 2 - 1), abs=0.05)  # DRIVE, theorem 2


# --- the plan -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("bits", [8, 4, 2, 1])
def test_the_planned_range_finds_the_updates(bits: int, start: float) -> None:
    """From a first guess that is off by far, the share beyond the range comes to what is meant, within 30 rounds."""
    random = np.random.default_rng(bits)
    step = SummedLevels(bits, start)
    common = random.normal(size=2000)
    for _ in range(30):
        clients = [torch.from_numpy((common + random.normal(size=2000)).astype(np.float32) / 50) for _ in range(8)]
        summed_by(step, clients)
    assert step.figures()["beyond_range"] == pytest.approx(BEYOND[bits], rel=0.5, abs=1e-3)
    assert step.norm == pytest.approx(float(clients[0].norm()), rel=0.35)


def summed_by(step: SummedLevels, clients: list[Tensor]) -> Tensor:
    return summed(step, clients, [1.0] * len(clients), list(range(len(clients))))


def test_a_hostile_client_does_not_widen_the_range_past_the_ceiling() -> None:
    """One of 10 claims that all lies beyond, round after round."""
    step, random = SummedLevels(8, 1.0, largest_norm=16.0), np.random.default_rng(0)
    for _ in range(20):
        before = step.norm
        step._plan_next(before, 0.1 + 0.9 * float(random.uniform(0, 1e-3)))
        assert before / 2 <= step.norm <= 2 * before
    assert step.norm == 16.0
    assert step.state_dict() == {NORM: step.norm}
    other = SummedLevels(8, 1.0, largest_norm=16.0)
    other.load_state_dict(step.state_dict())
    assert other.plan(3) == step.plan(3)
    assert other.plan(3)[ROTATION] != other.plan(4)[ROTATION]
    with pytest.raises(UpdateRejected, match="planned norm"):
        step.on_client(torch.zeros(12), 1.0, {**step.plan(1), NORM: 16.1}, {})


@pytest.mark.parametrize("start", [0.01, 1.0, 10.0])
@pytest.mark.parametrize("bits", [8, 4])
def test_clients_that_differ_converge(bits: int, start: float) -> None:
    """Of 10 clients each has an optimum of its own, and the updates do not become small: the planned norm stays."""
    random = np.random.default_rng(0)
    optima = [torch.from_numpy(random.normal(size=500).astype(np.float32)) for _ in range(10)]
    goal, x = torch.stack(optima).mean(0), torch.full((500,), 1.0)
    step, first = SummedLevels(bits, start, largest_norm=160.0), float((goal - x).norm())
    for _ in range(40):
        x = x + (summed_by(step, [0.5 * (own - x) for own in optima]) / 10).float()
    assert float((goal - x).norm()) < (0.02 if bits == 8 else 0.15) * first
    assert step.norm == pytest.approx(0.5 * float((optima[0] - x).norm()), rel=0.5)


@pytest.mark.parametrize("bits", [8, 2, 1])
def test_a_client_with_much_data_counts_as_much_as_it_should(bits: int) -> None:
    """10 clients in directions of their own, one of which has four times the data: 4 / 13 of the mean. Mean of the
    last 30 of 60 rounds, when the norm is planned well."""
    random = np.random.default_rng(0)
    clients = [torch.from_numpy(random.normal(size=1000).astype(np.float32)) for _ in range(10)]
    step, weights, shares = SummedLevels(bits, float(clients[0].norm())), [40 / 13] + [10 / 13] * 9, []
    for rounds in range(60):
        mean = summed(step, clients, weights, [10 * rounds + client for client in range(10)]) / 10
        own = clients[0].double()
        others = sum(float(other.double() @ own) for other in clients[1:]) / 13
        shares.append((float(mean @ own) - others) / float(own @ own))
    assert np.mean(shares[30:]) == pytest.approx(4 / 13, rel=0.2)


def test_a_share_far_beyond_is_warned_of_after_round_1(caplog: pytest.LogCaptureFixture) -> None:
    step = SummedLevels(8, 1.0, largest_norm=1.0)
    caplog.set_level("WARNING", "flwr")
    step._plan_next(1.0, 0.9)
    assert "beyond" not in caplog.text
    step._plan_next(1.0, 0.9)
    assert "90 % of the updates' values lie beyond" in caplog.text


@pytest.mark.parametrize("norm", [None, 0.0, -1.0, float("nan"), float("inf"), 1e30, "1", True])
def test_a_client_refuses_a_plan_that_no_server_makes(norm: object) -> None:
    step = SummedLevels(8, 1.0)
    with pytest.raises(UpdateRejected, match="planned norm"):
        step.on_client(torch.zeros(12), 1.0, {**step.plan(1), NORM: norm}, {})  # type: ignore[dict-item]
    with pytest.raises(UpdateRejected, match="rotation"):
        step.on_client(torch.zeros(12), 1.0, {**step.plan(1), ROTATION: -1}, {})


def test_an_update_far_longer_than_planned_keeps_its_direction() -> None:
    vector = VECTORS["layers"]
    found = summed(SummedLevels(8, float(vector.norm()) / 100), [vector], [1.0], [1])
    cosine = torch.nn.functional.cosine_similarity(found, vector.double(), 0)
    assert float(cosine) > 0.99  # some of it lies beyond the range
    assert float(found.norm()) == pytest.approx(float(vector.norm()) / 100, rel=0.05)


# --- error feedback -----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 3000), st.floats(0.001, 1.0), st.integers(0, 2**32))
def test_the_residual_and_what_was_sent_are_what_was_to_be_sent(length: int, share: float, seed: int) -> None:
    codec, state = LargestValues(share=share, error_feedback=True), dict[str, Tensor]()
    random, owed = np.random.default_rng(seed), torch.zeros(length)
    for _ in range(3):
        update = torch.from_numpy(random.normal(size=length).astype(np.float32))
        wanted = update + owed
        sent = codec.on_client(update, 1.0, {}, state)
        found = codec.on_reply(sent, 1.0, {"length": length})
        owed = state[RESIDUAL]
        assert torch.allclose(found + owed, wanted, rtol=0, atol=1e-6)
        assert int((found != 0).sum()) <= math.ceil(share * length)


def test_without_error_feedback_nothing_is_kept() -> None:
    codec, state = LargestValues(share=0.1, error_feedback=False), dict[str, Tensor]()
    codec.on_client(torch.randn(100), 1.0, {}, state)
    assert state == {}
    assert not codec.keeps_state


def test_a_codec_leaves_the_scalars_of_other_steps_alone() -> None:
    vector = torch.cat([VECTORS["normal"], torch.tensor([0.5, -0.5])])
    for codec in (OwnLevels(bits=8, tail=2), OwnLevels(bits=1, tail=2), Drive(tail=2)):
        sent = codec.on_client(vector, 1.0, {}, {})
        assert torch.equal(codec.on_reply(sent, 1.0, {"length": 1002})[1000:], vector[1000:])


# --- hostile replies ----------------------------------------------------------------------------------------------

SENT = {name: codec.seeded(4).on_client(VECTORS["normal"], 1.0, {}, {}) for name, codec in PER_REPLY.items()}


def with_bytes(sent: Tensor, start: int, content: bytes) -> Tensor:
    changed = sent.clone()
    changed[start : start + len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    return changed


SCALES = {"NaN": math.nan, "infinite": math.inf, "huge": 1e30, "negative": -1.0}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("codec", PER_REPLY)
def test_a_scale_that_no_update_has_is_rejected(codec: str, scale: str) -> None:
    start = 0 if codec == "top_k" else SEED.size
    changed = with_bytes(SENT[codec], start, struct.pack("<f", SCALES[scale]))
    with pytest.raises(UpdateRejected, match="a scale of"):
        PER_REPLY[codec].on_reply(changed, 1.0, {"length": 1000})


@pytest.mark.parametrize("change", ["short", "long", "empty", "other model", "float", "two-dimensional"])
@pytest.mark.parametrize("codec", PER_REPLY)
def test_a_reply_of_another_length_or_type_is_rejected(codec: str, change: str) -> None:
    sent, length = SENT[codec], 1000
    changed = {
        "short": sent[:-1],
        "long": torch.cat([sent, sent[:1]]),
        "empty": sent[:0],
        "other model": sent,
        "float": sent.float(),
        "two-dimensional": sent[None],
    }[change]
    with pytest.raises(UpdateRejected, match=f"bad {codec.split()[0]}: .*(bytes|uint8|float32)"):
        PER_REPLY[codec].on_reply(changed, 1.0, {"length": length + 300 * (change == "other model")})


def test_indices_that_cannot_be_are_rejected() -> None:
    codec, sent, runs = PER_REPLY["top_k"], SENT["top_k"], 4
    counts = np.frombuffer(sent[SCALE.size : SCALE.size + 2 * runs].numpy().tobytes(), "<u2")
    first = SCALE.size + 2 * runs  # the places within their runs
    cases = {
        "there twice": with_bytes(sent, first, bytes([int(sent[first + 1])])),
        "out of order": with_bytes(sent, first, b"\xff"),
        "indices, and 100 values": with_bytes(sent, SCALE.size, struct.pack("<H", counts[0] + 1)),
        "out of range": with_bytes(sent, first + 99, b"\xff"),
        "above the largest": with_bytes(sent, first + 100, b"\x80"),  # -128 of 127
    }
    for why, changed in cases.items():
        with pytest.raises(UpdateRejected, match=why):
            codec.on_reply(changed, 1.0, {"length": 1000})


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(sorted(PER_REPLY)), st.binary(max_size=400), st.integers(1, 3000))
def test_whatever_bytes_come_in_they_give_a_finite_update_or_are_rejected(
    codec: str, content: bytes, length: int
) -> None:
    sent = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.zeros(0, dtype=torch.uint8)
    try:
        found = PER_REPLY[codec].on_reply(sent, 1.0, {"length": length})
    except UpdateRejected:
        return
    assert found.shape == (length,)
    assert bool(torch.isfinite(found).all())


def test_bytes_are_what_the_docs_say() -> None:
    """1000 values are blocks of 512, 256, 128, 64 and 64 values, the last of which is filled up."""
    head = 8 + 4 * 5
    assert len(SENT["drive"]) == head + 1024 // 8
    assert len(SENT["quantise 4"]) == head + 1024 // 2
    assert len(SENT["top_k"]) == 4 + 2 * 4 + 2 * 100


# --- the share of the first rounds --------------------------------------------------------------------------------


def test_the_share_falls_geometrically_over_the_warm_up() -> None:
    codec = LargestValues(share=0.01, error_feedback=True, first_share=0.16, warm_up_rounds=4)
    shares = [codec.plan(server_round).get("share", codec.share) for server_round in range(1, 7)]
    assert shares == pytest.approx([0.16, 0.08, 0.04, 0.02, 0.01, 0.01])
    assert codec.plan(5) == {}
    assert LargestValues(share=0.01, error_feedback=True).plan(1) == {}
    assert LargestValues(share=0.3, error_feedback=True, first_share=0.25, warm_up_rounds=4).plan(1) == {}


def test_both_sides_take_the_share_of_the_plan() -> None:
    codec = LargestValues(share=0.01, error_feedback=True, first_share=0.5, warm_up_rounds=3)
    vector = VECTORS["normal"]
    for server_round, count in ((1, 500), (2, 136), (3, 37), (4, 10)):
        params = {**codec.plan(server_round), "length": 1000}
        sent = codec.on_client(vector, 1.0, params, {})
        assert len(sent) == 4 + 2 * 4 + 2 * count
        found = codec.on_reply(sent, 1.0, params)
        assert int((found != 0).sum()) == count
        largest = vector.abs().max() / 127 / 2 * 1.001
        assert bool(((found - vector).abs()[found != 0] <= largest).all())
        if server_round < 4:
            with pytest.raises(UpdateRejected, match=f"bad top_k: {len(sent)} bytes, and 10 of 1000 values take"):
                codec.on_reply(sent, 1.0, {"length": 1000})


def test_a_share_of_one_may_be_a_whole_number() -> None:
    codec = LargestValues(share=1, error_feedback=True)
    assert len(codec.on_client(VECTORS["normal"], 1.0, {"length": 1000}, {})) == 4 + 2 * 4 + 2 * 1000


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, math.nan, math.inf, "0.1", True, 1])
def test_a_share_that_no_server_plans_is_refused(share: Any) -> None:
    codec = LargestValues(share=0.01, error_feedback=True)
    with pytest.raises(UpdateRejected, match="bad plan of top_k: no share of values that could be"):
        codec.on_client(VECTORS["normal"], 1.0, {"share": share}, {})
