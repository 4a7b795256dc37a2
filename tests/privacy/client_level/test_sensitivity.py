"""One client in or out changes a round's sum by the clipping norm at most, whatever it sends; and its bit by a half."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from client_level import MODEL, SAMPLING, TRAINED, asked, central_step, given, replied, round_of
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from fedapp.learning.task import Evaluation
from fedapp.privacy.client_level.central_step import NORM, CentralNoise, CentralStep, NormQuantile
from fedapp.privacy.client_level.client_dp import ClientDp
from fedapp.privacy.client_level.client_protection import ClientProtection
from fedapp.privacy.client_level.metric_sums import MetricSums
from fedapp.privacy.client_level.norm import norm_of, within
from fedapp.privacy.client_level.rounding import l1_bound, l2_bound, rounded
from fedapp.privacy.client_level.skellam_noise import SkellamNoise, Sums
from fedapp.privacy.noise import Noise
from fedapp.updates.step import UpdateRejected
from fedapp.updates.steps import UpdateSteps
from fedapp.wire.reply import ClientReport, Reply, pack_reply

LENGTH = len(TRAINED)
ANY = st.floats(width=32)  # NaN, infinities, subnormal and huge ones too
SOUND = st.floats(-100.0, 100.0, width=32)  # else the whole update is rejected, and nothing has to bound it


def updates(length: int) -> st.SearchStrategy[Tensor]:
    values = st.lists(SOUND, min_size=length, max_size=length) | st.lists(ANY, min_size=length, max_size=length)
    return values.map(torch.tensor)


UPDATE = updates(LENGTH + 1)
QUANTILE = NormQuantile(0.5, 0.2, 3.0)
METRICS = MetricSums({"loss": (0.0, 5.0), "accuracy": (0.0, 1.0)}, 20, 2.0)


def hostile(client: int, kind: str, vector: Tensor, steps: UpdateSteps) -> RecordDict | Mapping[str, Tensor] | None:
    update = given(vector, steps)
    if kind == "gone":
        return None
    if kind == "rubbish":
        return RecordDict({"config": ConfigRecord({"clients": [client] * 3})})
    if kind == "another shape":
        return {**update, "w": torch.zeros(7)}
    if kind == "another dtype":
        return {name: value.double() for name, value in update.items()}
    if kind == "a sum":  # as a SuperNode with several clients sends: larger than any single update may be
        return pack_reply(
            Reply((ClientReport(client),), {}, {k: torch.full_like(v, 2**40).long() for k, v in update.items()})
        )
    if kind == "its own count":
        reply = pack_reply(Reply((ClientReport(client, num_examples=10**9, val_examples=10**9),), {client: update}))
        reply["more"] = ArrayRecord({})
        return reply
    return update


KINDS = st.sampled_from(
    ["an update"] * 4 + ["gone", "rubbish", "another shape", "another dtype", "a sum", "its own count"]
)


@settings(max_examples=300, deadline=None)
@drawn(
    st.lists(st.tuples(KINDS, UPDATE), min_size=1, max_size=5),
    st.sampled_from([1e-3, 0.1, 1.0, 30.0, 1e4]),
    st.booleans(),
)
def test_one_client_changes_the_sum_by_the_clipping_norm_at_most(
    sent: list[tuple[str, Tensor]], norm: float, adaptive: bool
) -> None:
    steps = UpdateSteps((central_step(norm, quantile=QUANTILE if adaptive else None),))
    replies = {c: hostile(c, kind, vector[: LENGTH + adaptive], steps) for c, (kind, vector) in enumerate(sent)}
    all_of_them = round_of(steps, replies)
    without = round_of(steps, {client: reply for client, reply in replies.items() if client})
    change = all_of_them - without
    assert float(torch.linalg.vector_norm(change[:LENGTH])) <= norm
    assert bool((change[:LENGTH][~TRAINED] == 0).all())
    if adaptive:
        assert abs(float(change[LENGTH])) <= 0.5


@settings(max_examples=200, deadline=None)
@drawn(
    st.lists(st.tuples(KINDS, updates(LENGTH + 4)), min_size=1, max_size=5),
    st.booleans(),
)
def test_one_client_changes_the_metrics_sums_by_their_sensitivity_at_most(
    sent: list[tuple[str, Tensor]], adaptive: bool
) -> None:
    """Count, loss and accuracy together, whatever it claims."""
    steps = UpdateSteps((central_step(1.0, quantile=QUANTILE if adaptive else None, metrics=METRICS),))
    replies = {c: hostile(c, kind, vector[: LENGTH + adaptive + 3], steps) for c, (kind, vector) in enumerate(sent)}
    change = round_of(steps, replies) - round_of(steps, {c: reply for c, reply in replies.items() if c})
    metrics = change[LENGTH + adaptive :]
    assert len(metrics) == 3
    rounding = 3 * 2.0**-43 / SAMPLING.unit
    assert float(torch.linalg.vector_norm(metrics)) <= METRICS.sensitivity + rounding
    assert float(torch.linalg.vector_norm(change[:LENGTH])) <= 1.0  # and the update by no more than without them


@drawn(st.integers(0, 10**6), st.floats(), st.floats(), st.integers(1, 50))
def test_a_client_s_metrics_are_within_their_sensitivity(count: int, loss: float, accuracy: float, cap: int) -> None:
    made = MetricSums({"loss": (0.0, 5.0), "accuracy": (0.0, 1.0)}, cap, 1.0)
    found = made.contribution(Evaluation(count, loss, {"accuracy": accuracy}))
    assert tuple(found) == made.scalars
    assert np.linalg.norm([*found.values()]) <= made.sensitivity
    assert found["val-examples"] == min(count / cap, 1.0)
    assert not any(made.contribution(None).values())
    alike = torch.tensor([*found.values()], dtype=torch.float64)
    assert torch.equal(made.bounded(alike), alike)


def test_metrics_are_those_of_all_examples_that_count() -> None:
    """Two clients, of 10 and 40 examples, of whom 20 count; without noise."""
    made = MetricSums({"loss": (0.0, 5.0), "accuracy": (0.0, 1.0)}, 20, 0.0)
    each = [Evaluation(10, 1.0, {"accuracy": 0.5}), Evaluation(40, 9.0, {"accuracy": 0.8})]
    sums = np.sum([[*made.contribution(judged).values()] for judged in each], axis=0)
    found = made.means(sums.tolist())
    assert found == pytest.approx({"val_loss": (10 * 1.0 + 20 * 5.0) / 30, "val_accuracy": (10 * 0.5 + 20 * 0.8) / 30})
    assert set(made.means([0.0, 0.0, 0.0]).values()) == {None}
    noisy = MetricSums(made.ranges, 20, 4.0)
    assert set(noisy.means([3 * noisy.deviation, 1.0, 1.0]).values()) == {None}  # too few against the noise
    assert noisy.means([4 * noisy.deviation, 1e9, -1e9]) == {"val_loss": 5.0, "val_accuracy": 0.0}


@settings(max_examples=200, deadline=None)
@drawn(st.lists(ANY, min_size=1, max_size=40), st.floats(1e-6, 1e6))
def test_a_clipped_vector_is_never_too_long(values: list[float], norm: float) -> None:
    vector = torch.tensor(values, dtype=torch.float32)
    found = within(vector, norm)
    assert norm_of(found) <= norm
    if bool(torch.isfinite(vector).all()) and norm_of(vector) > 1e-30:
        assert norm_of(found) >= min(norm_of(vector), norm) * (1 - 1e-5)
        scaled = vector.double() * norm_of(found)  # norms of float32 values may be beyond float32
        assert torch.allclose(found.double() * norm_of(vector), scaled, rtol=1e-3, atol=1e-3)
    if not bool(torch.isfinite(vector).all()):
        assert not found.any()


@settings(max_examples=60, deadline=None)
@drawn(st.integers(1, 3000), st.floats(-44, 38), st.floats(1e-4, 1e4), st.booleans(), st.integers(0, 2**32))
def test_a_long_vector_is_never_too_long_either(
    length: int, power: float, norm: float, in_place: bool, key: int
) -> None:
    """Its squares are summed in float32, by rows."""
    random = torch.Generator().manual_seed(key)
    vector = (torch.randn(length, generator=random).double() * 10.0**power).clamp(-3e38, 3e38).float()
    before = vector.double()
    found = within(vector, norm, in_place=in_place).double()
    exactly = float(torch.linalg.vector_norm(before))
    assert float(torch.linalg.vector_norm(found)) <= norm
    assert in_place or torch.equal(vector.double(), before)
    if exactly > 1e-30:
        assert torch.allclose(found, before * min(1.0, norm / exactly), rtol=1e-4, atol=1e-40)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_updates_of_half_precision_are_shortened_and_not_lost(dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(1)
    for vector in torch.randn(200, 50, generator=random).to(dtype):
        found = within(vector, 1.0)
        assert found.dtype == dtype
        assert 1 - 2.0**-6 < norm_of(found) <= 1.0


def test_a_vector_whose_squares_overflow_is_clipped_in_its_direction() -> None:
    found = within(torch.tensor([1e300, -1e300], dtype=torch.float64), 1.0)
    assert found.tolist() == pytest.approx([0.5**0.5, -(0.5**0.5)], rel=1e-6)


def test_honest_updates_within_the_norm_are_left_as_they_are() -> None:
    steps = UpdateSteps((central_step(5.0),))
    vector = torch.where(TRAINED, torch.arange(LENGTH) / 10.0, 0.0)
    assert round_of(steps, {0: given(vector, steps), 1: given(vector, steps)}).tolist() == pytest.approx(
        (2 * vector).tolist(), abs=1e-9
    )


def test_a_sum_of_virtual_clients_is_checked() -> None:
    """A SuperNode that hosts several, as in simulations, sends one sum."""
    step = central_step(1.0, quantile=QUANTILE)
    steps, unit = UpdateSteps((step,)), SAMPLING.unit
    good = torch.cat([torch.where(TRAINED, 0.3, 0.0), torch.tensor([1.0])]) * unit
    assert step.on_reply(good, 2 * unit, steps.plan(1)["client-dp"]) is good
    for bad in (good * 3, good * torch.tensor([1.0] * LENGTH + [2.0]), good * torch.nan):
        with pytest.raises(UpdateRejected, match="larger than clipped updates can make it"):
            step.on_reply(bad, 2 * unit, steps.plan(1)["client-dp"])


@pytest.mark.parametrize(
    ("sums", "possible"),
    [
        ([2.0, 1.0, -1.0], True),
        ([0.5, 0.25, 0.0], True),
        ([2.1, 0.0, 0.0], False),
        ([-0.1, 0.0, 0.0], False),
        ([1.0, 0.6, 0.0], False),
        ([1.0, 0.0, -0.6], False),
        ([float("nan"), 0.0, 0.0], False),
        ([1.0, float("nan"), 0.0], False),
    ],
    ids=str,
)
def test_sums_of_metrics_of_virtual_clients_are_checked(sums: list[float], possible: bool) -> None:
    step = central_step(1.0, metrics=METRICS)
    vector = torch.cat([torch.zeros(LENGTH), torch.tensor(sums)]).double() * SAMPLING.unit
    plan = step.plan(1)
    if possible:
        assert step.on_reply(vector, 2 * SAMPLING.unit, plan) is vector
    else:
        with pytest.raises(UpdateRejected, match="larger than clipped updates can make it"):
            step.on_reply(vector, 2 * SAMPLING.unit, plan)


@pytest.mark.parametrize(
    ("sums", "possible"),
    [
        ([2 + 2.0**-11, 1.0, -1.0], True),
        ([2.0, 1 + 2.0**-11, 0.0], True),
        ([3.0, 0.0, 0.0], False),
        ([2.0, 1.5, 0.0], False),
        ([-1.0, 0.0, 0.0], False),
    ],
    ids=str,
)
def test_the_slack_of_metrics_sums_is_that_of_fixed_point(sums: list[float], possible: bool) -> None:
    """Of two clients, in a population so large that a client's unit is below 1e-9 and rounding 2^-12 of it."""
    unit = 2.0**-31
    step = CentralStep(CentralNoise(1.0, unit, 2.0**29, metrics=METRICS), 1.0, TRAINED)
    vector = torch.cat([torch.zeros(LENGTH).double(), torch.tensor(sums, dtype=torch.float64)]) * unit
    if possible:
        assert step.on_reply(vector, 2 * unit, step.plan(1)) is vector
    else:
        with pytest.raises(UpdateRejected, match="larger than clipped updates can make it"):
            step.on_reply(vector, 2 * unit, step.plan(1))


@pytest.mark.parametrize("norm", [float("nan"), -1.0, 0.0, 1e30, "1", None])
def test_a_client_takes_no_clipping_norm_that_cannot_be(norm: object) -> None:
    params = {} if norm is None else {NORM: norm}
    with pytest.raises(UpdateRejected, match="no clipping norm"):
        central_step().on_client(torch.zeros(LENGTH), SAMPLING.unit, params, {})  # type: ignore[arg-type]


# --- weights ------------------------------------------------------------------------------------------------------


def keys(**changed: object) -> ClientDp:
    found = {
        **dict.fromkeys(("target_epsilon", "delta", "population", "quantile", "quantile_noise", "max_participations")),
        **{"noise_multiplier": 1.0, "clipping_norm": 1.0, "count_cap": None, "accountant": "rdp", "quantile_rate": 0.2},
        **{"honest_share": 1.0, "tolerated_dropouts": 0.0, "noise_source": "os_entropy"},
    }
    return ClientDp(**{**found, **changed})


@drawn(st.integers(0, 10**9), st.integers(1, 10**6))
def test_a_weight_is_of_its_own_count_and_the_cap(count: int, cap: int) -> None:
    assert keys(count_cap=cap).weight(count) == min(count / cap, 1.0)
    assert keys().weight(count) == 1.0


def test_the_weight_comes_before_clipping() -> None:
    """Weight, clip, noise: a heavy client's update is clipped after it was multiplied, a light one's is small."""
    protection = ClientProtection(lambda *_, **__: None, keys(count_cap=100).weight)  # type: ignore[arg-type,return-value]
    update = {"w": torch.full((3, 2), 2.0), "scale": torch.ones(2), "b": torch.zeros(4)}
    steps = UpdateSteps((central_step(1.0),))
    for count, expected in ((10, 0.2 * 6**0.5), (1000, 1.0)):
        weighted = protection.update(update, {"w", "b"}, count)
        assert not weighted["scale"].any()
        sent = steps.on_client(weighted, MODEL.template, SAMPLING.unit, steps.plan(1), {})
        assert float(sent["w"].norm()) == pytest.approx(expected, rel=1e-5)


# --- distributed --------------------------------------------------------------------------------------------------


def skellam(length: int, norm: float = 1.0, bits: int = 16, expected: int = 20) -> SkellamNoise:
    sums = Sums(length, norm, bits, expected, expected, 1.0)
    return SkellamNoise(sums, 1.0, torch.arange(length + 2) < length, 0, lambda: Noise(1))


@settings(max_examples=150, deadline=None)
@drawn(
    st.lists(st.floats(), min_size=1, max_size=70),
    st.sampled_from([1e-3, 1.0, 50.0]),
    st.sampled_from([16, 24, 32]),
    st.integers(0, 2**64),
)
def test_whole_numbers_are_within_the_bound_that_is_paid_for(
    values: list[float], norm: float, bits: int, key: int
) -> None:
    """After rotation, clipping and conditional rounding, for any values."""
    made = skellam(len(values), norm, bits)
    found = made.whole(np.array([*values, 1e9, -1e9]), 3, Noise(key))
    assert found.dtype == np.int64
    assert float(np.linalg.norm(found.astype(float))) <= made.l2 * (1 + 1e-12)
    assert float(np.abs(found).sum()) <= made.l1 * (1 + 1e-12)


@drawn(st.integers(1, 60), st.floats(0, 40), st.integers(0, 2**64))
def test_rounding_keeps_to_its_bound_and_to_its_neighbours(length: int, norm: float, key: int) -> None:
    random = np.random.default_rng(key)
    values = random.standard_normal(length)
    values *= norm / np.linalg.norm(values)
    found = rounded(values, norm, random)
    assert np.abs(found - values).max() < 1
    assert np.dot(found, found) <= l2_bound(norm, length) ** 2
    assert np.abs(found).sum() <= l1_bound(l2_bound(norm, length), length)


def test_values_that_are_not_trained_never_enter_a_sum() -> None:
    made = skellam(6)
    one = np.array([0.1, -0.2, 0.3, 0.0, 0.1, 0.2, 5.0, 7.0])
    total = np.sum([made.whole(one, 2, Noise(key)) for key in range(400)], axis=0)
    found = made.decode(total, 2) / 400
    assert found[6:].tolist() == [0.0, 0.0]
    assert found[:6].tolist() == pytest.approx(one[:6].tolist(), abs=1e-3)


def test_nobody_s_round_is_a_sum_of_zeros() -> None:
    steps = UpdateSteps((central_step(),))
    aggregate = replied(asked([], steps), steps, {})
    assert aggregate.total is not None
    assert all(not value.any() for value in aggregate.total.values())
