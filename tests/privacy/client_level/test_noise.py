"""Noise has the variance that accounting assumes. Each statistical test fails by chance less than once in 10^8 runs:
its bounds are six standard deviations wide."""

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from client_level import SAMPLING, central_step, given
from scipy.stats import kurtosis
from secure_rounds import play

from fedapp.aggregation.secaggplus.least_sum import LeastSum
from fedapp.aggregation.secaggplus.settings import Settings
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.privacy.client_level.central_step import CentralNoise, CentralStep, NormQuantile
from fedapp.privacy.client_level.metric_sums import MetricSums
from fedapp.privacy.client_level.skellam_noise import LARGEST_SHARE, SkellamNoise, Sums
from fedapp.privacy.noise import Noise, make_noise
from fedapp.privacy.sampling import Sampling
from fedapp.updates.steps import UpdateSteps

SIX = 6.0
LENGTH = 200_000


def check_variance(values: np.ndarray, expected: float) -> None:
    """Of independent values of mean 0: mean and variance within six standard deviations of what they estimate."""
    count, fourth = len(values), 3.0 + max(0.0, float(kurtosis(values)))
    assert abs(values.mean()) <= SIX * math.sqrt(expected / count)
    assert abs(values.var() - expected) <= SIX * expected * math.sqrt((fourth - 1) / count)


@pytest.mark.parametrize("total", [0.0, 3.0])
def test_the_noise_of_a_sum_is_sigma_times_the_norm_on_every_trained_value(total: float) -> None:
    """On an empty round's, too."""
    trained = torch.arange(LENGTH + 50) < LENGTH
    step = CentralStep(CentralNoise(1.7, SAMPLING.unit, SAMPLING.expected), 0.3, trained)
    before = torch.full((LENGTH + 50,), total, dtype=torch.float64)
    after = step.on_total(before.clone(), 0.0, (), step.plan(1), 0.0)
    noise = (after - before)[:LENGTH].numpy() / SAMPLING.unit
    check_variance(noise, (1.7 * 0.3) ** 2)
    assert not after[LENGTH:].any()  # nobody trains these, and no noise changes them


def test_the_quantile_s_count_has_its_own_noise() -> None:
    """The joint mechanism is one Gaussian of the noise multiplier that is accounted for."""
    quantile = NormQuantile(0.5, 0.2, 4.0)
    noise = CentralNoise(1.2, SAMPLING.unit, SAMPLING.expected, quantile)
    assert noise.joint == pytest.approx((1.2**-2 + 8.0**-2) ** -0.5)
    found = []
    for _ in range(4000):
        step = CentralStep(noise, 1.0, torch.tensor([True]))
        step.on_total(torch.zeros(2, dtype=torch.float64), 0.0, (), step.plan(1), 0.0)
        moved = math.log(step.clipping_norm) / -0.2 + 0.5  # the noised share
        found.append((moved - 0.5) * SAMPLING.expected)
    inside = np.array(found)
    # The share is bounded far out, which these draws do not reach.
    check_variance(inside, 16.0)


class Raw(MetricSums):
    """Tells the noised sums themselves."""

    def means(self, noised: Sequence[float]) -> dict[str, float | None]:
        return dict(zip(self.scalars, noised, strict=True))


def test_sums_of_metrics_have_the_noise_that_is_accounted_for() -> None:
    """sigma times their sensitivity on each, and all three Gaussians are one of the joint noise multiplier."""
    metrics = Raw({"loss": (0.0, 5.0), "accuracy": (0.0, 1.0)}, 20, 3.0)
    noise = CentralNoise(1.2, SAMPLING.unit, SAMPLING.expected, NormQuantile(0.5, 0.2, 4.0), metrics=metrics)
    assert noise.joint == pytest.approx((1.2**-2 + 8.0**-2 + 3.0**-2) ** -0.5)
    assert metrics.sensitivity == pytest.approx(1.5**0.5)
    sums = torch.tensor([0.0, 0.0, 5.0, 1.0, -2.0], dtype=torch.float64) * SAMPLING.unit
    found = []
    for _ in range(3000):
        step = CentralStep(noise, 1.0, torch.tensor([True]))
        step.on_total(sums.clone(), 0.0, (), step.plan(1), 0.0)
        found.append([step.figures()[name] for name in metrics.scalars])
    drawn = np.array(found, dtype=float) - [5.0, 1.0, -2.0]
    check_variance(drawn.reshape(-1), 9.0 * 1.5)
    for one in drawn.T:
        check_variance(one, 9.0 * 1.5)


@pytest.mark.parametrize("std", [3e-7, 0.02, 1.7, 1e6])
def test_a_noised_sum_lies_on_a_grid_whatever_it_was(std: float) -> None:
    """The last bits of floating-point noise would tell what it was added to (Mironov 2012)."""
    spacing = 2.0 ** (math.floor(math.log2(std)) - 12)
    before = torch.full((LENGTH,), std * math.pi, dtype=torch.float64)
    after = make_noise("os_entropy").added(before, std)
    steps = after / spacing
    assert torch.equal(steps, steps.round())
    assert len(set((steps % 2).tolist())) == 2  # and no coarser one
    check_variance((after - before).numpy(), std**2)
    assert torch.equal(make_noise("os_entropy").added(before, 0.0), before)


def test_each_step_of_the_grid_is_as_likely_as_the_gaussian_says() -> None:
    """Around the middle, for two sums that differ by a part of a step: what a gap would tell apart."""
    count, wide = 2_000_000, 64
    for shift in (0.0, 0.37):
        before = torch.full((count,), shift, dtype=torch.float64)
        steps = make_noise("os_entropy").added(before, 2.0**12).numpy()  # a grid of whole numbers
        there = np.bincount((steps[np.abs(steps) < wide] + wide).astype(int), minlength=2 * wide)[1:]
        expected = count * 2.0**-12 / math.sqrt(2 * math.pi)
        assert abs(there - expected).max() <= 7 * math.sqrt(expected)
        assert there.min() > 0


def test_two_streams_of_one_seed_differ() -> None:
    step = central_step(quantile=None)
    steps = UpdateSteps((step,))
    zeros = {name: value.double() for name, value in given(torch.zeros(12), steps).items()}
    first, second = (steps.on_total(dict(zeros), 0.0, (), steps.plan(1), 0.0) for _ in range(2))
    assert all(not torch.equal(first[name], second[name]) for name in ("w", "b"))


def test_the_cohort_is_a_poisson_sample_from_the_system_s_entropy() -> None:
    registry = list(range(7, 2007))
    draws = [Sampling(0.1, 1.0, 200.0, 2000).draw(registry, 1) for _ in range(400)]
    assert draws[0] != draws[1]
    sizes = np.array([len(draw) for draw in draws])
    assert abs(sizes.mean() - 200) <= SIX * math.sqrt(2000 * 0.1 * 0.9 / 400)
    assert abs(sizes.var() - 180) <= SIX * 180 * math.sqrt(2 / 400)  # binomial, and never of one size
    times = np.zeros(2007)
    for draw in draws:
        assert draw == sorted(set(draw))
        times[draw] += 1
    each = times[7:]
    assert abs(each - 40).max() <= 7 * math.sqrt(400 * 0.1 * 0.9)  # of 2,000 clients: seven, for as small a chance
    assert Sampling(0.1, 1.0, 200.0, 2000).draw([], 1) == []


# --- distributed --------------------------------------------------------------------------------------------------


def skellam(
    *, honest: float = 1.0, least: int = 4, expected: int = 5, bits: int = 32, length: int = 4096
) -> SkellamNoise:
    sums = Sums(length, 0.5, bits, expected, least, honest)
    return SkellamNoise(sums, 1.3, torch.ones(length, dtype=torch.bool), 0, lambda: make_noise("os_entropy"))


@pytest.mark.parametrize("variance", [0.3, 7.0, 1e4, LARGEST_SHARE])
def test_skellam_values_have_their_variance(variance: float) -> None:
    found = Noise(int.from_bytes(b"skellam", "big")).skellam(LENGTH, variance)
    assert found.dtype == np.int64
    check_variance(found.astype(float), variance)
    assert kurtosis(found) == pytest.approx(1 / variance, abs=SIX * math.sqrt(24 / LENGTH) + 1 / variance)


@pytest.mark.parametrize(("survivors", "honest"), [(5, 1.0), (4, 1.0), (5, 0.8), (4, 0.5)])
def test_a_sum_has_at_least_the_noise_that_is_accounted_for(survivors: int, honest: float) -> None:
    """Over dropouts never less, with the noise of those alone who are taken to be honest."""
    made = skellam(honest=honest)
    zeros = np.zeros(4096)
    sums = [np.sum([made.encode(zeros, 1) for _ in range(survivors)], axis=0) for _ in range(50)]
    found = np.concatenate(sums).astype(float)
    check_variance(found, made.share * survivors)
    assert made.share * survivors * honest >= made.variance * (1 - 1e-12)
    assert made.share * 4 * honest == pytest.approx(made.variance)


def test_distributed_and_central_agree_in_mean_and_variance() -> None:
    """At the same noise multiplier; the variance up to that of rounding, a quarter at most for each client, and the
    sensitivity that rounding adds."""
    made = skellam(least=5)
    random = np.random.default_rng(0)
    updates = [random.standard_normal(4096) for _ in range(5)]
    clipped = [update * (0.5 / np.linalg.norm(update)) for update in updates]
    released = np.array(
        [made.decode(np.sum([made.encode(update, 1) for update in updates], axis=0), 1) for _ in range(60)]
    )
    rest = (released - np.sum(clipped, axis=0)).reshape(-1)
    central = (1.3 * 0.5) ** 2
    stated = central * (made.l2 / (made.scale * 0.5)) ** 2
    assert stated <= central * 1.01
    rounding = 5 / 4 / made.scale**2
    deviation = SIX * stated * math.sqrt(2 / len(rest))
    assert stated - deviation <= rest.var() <= stated + rounding + deviation
    assert abs(rest.mean()) <= SIX * math.sqrt((stated + rounding) / len(rest))


@pytest.mark.parametrize("gone", [0, 1])
def test_only_the_noised_sum_is_unmasked(gone: int) -> None:
    made = skellam(length=64, bits=24)
    settings = Settings(modulus_bits=24, noised=True)
    vectors = {client: made.encode(np.full(64, 0.01), 1) for client in range(5)}
    away = ((), (), range(gone), ())
    played = play(5, settings, length=64, own=vectors, gone=away, least=LeastSum(made.least))
    total = played.server.unmask().total
    assert total.tolist() == sum(vectors[client] for client in range(gone, 5)).tolist()


def test_with_too_many_dropouts_no_client_reveals_a_share() -> None:
    """A check by the server would not do: clients refuse."""
    made = skellam(length=64, bits=24)
    settings = Settings(modulus_bits=24, noised=True, threshold=2)
    vectors = {client: made.encode(np.full(64, 0.01), 1) for client in range(5)}
    with pytest.raises(ProtocolError, match=r"3 clients in the sum, this client asks for 4"):
        play(5, settings, length=64, own=vectors, gone=((), (), range(2), ()), least=LeastSum(made.least))


def test_a_sum_that_goes_over_the_modulus_is_counted() -> None:
    made = skellam(bits=16)
    edge = 2**15
    assert made.wrapped(np.array([0, edge // 2, int(0.95 * edge), -int(0.95 * edge)])) == 2
    assert made.sums.deviation(made.scale, made.multiplier) * 5 == pytest.approx(edge, rel=1e-6)
    zeros = np.sum([made.encode(np.ones(4096), 1) for _ in range(5)], axis=0)
    assert made.wrapped(zeros) == 0


def elsewhere(work: Callable[[], object]) -> float:
    """CPU seconds that other threads than this one take for it."""
    begun = time.process_time() - time.thread_time()
    work()
    time.sleep(0.02)
    return time.process_time() - time.thread_time() - begun


def test_an_update_is_encoded_by_one_thread() -> None:
    """NumPy's BLAS wakes threads of its own even for a norm, and they wait for more at full speed: 20 ms of CPU time
    and more after a call of a tenth of a millisecond."""
    made = SkellamNoise(
        Sums(LENGTH, 1.0, 32, 100, 90, 0.9), 1.0, torch.ones(LENGTH, dtype=torch.bool), 0, lambda: Noise(1)
    )
    values, threads = np.linspace(-1, 1, LENGTH), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert min(elsewhere(lambda: made.encode(values, 1)) for _ in range(5)) < 0.002
    finally:
        torch.set_num_threads(threads)
