"""Privacy accounting by Opacus: epsilon of a whole history of DP-SGD steps, and the noise that keeps to a budget."""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

from fedapp.common.errors import ConfigError
from fedapp.privacy.gaussian import epsilon_of_gaussian
from fedapp.privacy.skellam import ORDERS, epsilon_from_rdp, rdp

__all__ = ["SkellamSpending", "Spending", "calibrate", "calibrate_skellam", "epsilon"]

# Above this epsilon PRV may not end or gives up. Below it, its time and memory grow with the points of its grid, about
# 2 us each; where they are more than these, a coarser grid is taken, whose error is added to epsilon.
LARGEST_PRV, MOST_PRV_POINTS = 50.0, 400_000.0
LEAST_PRV_ERROR, LARGEST_PRV_ERROR = 0.01, 0.5
LARGEST_NOISE = 1e4
# RDP's series for a sampled step take seconds for less noise, and epsilon is above 50 for a single one: it counts as if
# it took every example, which costs no less.
LEAST_NOISE_SAMPLED = 0.1


@dataclass(frozen=True)
class Spending:
    """`steps` of DP-SGD: each example sampled with probability `sample_rate`, noise of `noise_multiplier` times the
    clipping norm added to the sum of gradients (Abadi et al. 2016)."""

    noise_multiplier: float
    sample_rate: float
    steps: int

    def voided(self) -> "Spending":
        """The same without noise: it can be predicted."""
        return replace(self, noise_multiplier=0.0)


@dataclass(frozen=True)
class SkellamSpending:
    """`steps` sums of whole numbers, to each of which a client gave a vector of these norms at most, under Skellam
    noise of `variance` (Agarwal et al. 2021). No sampling hides anybody."""

    variance: float
    l2: float
    l1: float
    steps: int
    sample_rate: ClassVar[float] = 1.0

    @property
    def noise_multiplier(self) -> float:
        return math.sqrt(self.variance) / self.l2

    def voided(self) -> "SkellamSpending":
        """The same without noise: it can be predicted."""
        return replace(self, variance=0.0)


def epsilon(history: Iterable[Spending | SkellamSpending], delta: float, accountant: str) -> float:
    """Epsilon of all of `history` together at `delta`, by `accountant` "rdp" or "prv"; infinite without noise.

    The order does not matter: RDP (Mironov et al. 2019) and PRV (Gopi et al. 2021) compose by addition. Without
    sampling "prv" is what PRV approximates, the Gaussian mechanism's exact value. Where PRV finds no smaller value
    within a second or so, as above 50, the value is RDP's for both. Of Skellam noise there is RDP's.
    """
    everything = list(history)
    skellam = [spent for spent in everything if isinstance(spent, SkellamSpending)]
    gaussian = [spent for spent in everything if isinstance(spent, Spending)]
    return _mixed(gaussian, skellam, delta) if skellam else _gaussian(gaussian, delta, accountant)


def _mixed(gaussian: Iterable[Spending], skellam: Iterable[SkellamSpending], delta: float) -> float:
    """By RDP of whole orders."""
    steps: Counter[tuple[float, float, float]] = Counter()
    for one in skellam:
        steps[one.variance, one.l2, one.l1] += one.steps
    costs = dict.fromkeys(ORDERS, 0.0)
    for order in ORDERS:
        for (variance, l2, l1), count in steps.items():
            costs[order] += count * rdp(order, l1=l1, l2=l2, variance=variance)
        for spent in gaussian:  # as if each took everybody, which costs no less
            sigma = spent.noise_multiplier
            costs[order] += spent.steps * (order / (2 * sigma**2) if sigma else math.inf)
    return epsilon_from_rdp(costs.items(), delta)


def _gaussian(history: Iterable[Spending], delta: float, accountant: str) -> float:
    steps: Counter[tuple[float, float]] = Counter()
    for spent in history:
        rate = spent.sample_rate if spent.noise_multiplier >= LEAST_NOISE_SAMPLED else 1.0
        steps[spent.noise_multiplier, rate] += spent.steps
    merged = tuple((sigma, rate, count) for (sigma, rate), count in sorted(steps.items()) if count)
    if not merged:
        return 0.0
    if any(sigma == 0 for sigma, _, _ in merged):
        return math.inf
    bound = _rdp(merged, delta)
    if accountant == "rdp" or not bound <= LARGEST_PRV:
        return bound
    if all(rate == 1 for _, rate, _ in merged):
        spread = math.sqrt(sum(count / sigma**2 for sigma, _, count in merged))
        return min(bound, epsilon_of_gaussian(spread, delta))
    found = _prv(merged, delta)
    return found if 0 <= found < bound else bound  # NaN is neither


@lru_cache(maxsize=256)
def _rdp(history: tuple[tuple[float, float, int], ...], delta: float) -> float:
    from fedapp.privacy.opacus_internals import epsilon_of  # 2 s

    return epsilon_of(list(history), delta, "rdp")


@lru_cache(maxsize=256)
def _prv(history: tuple[tuple[float, float, int], ...], delta: float) -> float:
    """NaN where it would take longer, or Opacus's gives up."""
    from fedapp.privacy.opacus_internals import epsilon_of, prv_points

    entries = list(history)
    try:
        excess = prv_points(entries, delta, LEAST_PRV_ERROR) / MOST_PRV_POINTS
        error = LEAST_PRV_ERROR * max(1.0, excess)  # points are in proportion to 1 / error
        return epsilon_of(entries, delta, "prv", eps_error=error) if error <= LARGEST_PRV_ERROR else math.nan
    except (ArithmeticError, RuntimeError, ValueError, IndexError):  # each for other noise, rates and delta
        return math.nan


@lru_cache(maxsize=16)
def calibrate(target_epsilon: float, delta: float, sample_rate: float, steps: int, accountant: str) -> float:
    """The least noise multiplier (to 0.01 in epsilon) with which `steps` cost no more than `target_epsilon`.

    As Opacus's get_noise_multiplier, but without asking PRV for large epsilons. Raises ConfigError where no noise
    multiplier up to `LARGEST_NOISE` is enough.
    """

    def cost(sigma: float, by: str) -> float:
        return epsilon([Spending(sigma, sample_rate, steps)], delta, by)

    found = _least(lambda sigma: cost(sigma, "rdp"), target_epsilon, 0.0, 1.0)
    if accountant != "rdp":  # a little less noise, or, where RDP's orders end, some at all
        low, high = (found / 2, found) if found is not None else (0.0, 1.0)
        found = _least(lambda sigma: cost(sigma, accountant), target_epsilon, low, high)
    if found is None:
        raise ConfigError(
            f"privacy.target_epsilon={target_epsilon}: no noise keeps {steps} steps at sample rate {sample_rate}"
            " within it; raise it, or plan fewer rounds"
        )
    return found


def calibrate_skellam(
    target_epsilon: float, delta: float, steps: int, spending: Callable[[float], SkellamSpending]
) -> float:
    """The least noise multiplier (to 0.01 in epsilon) with which `steps` cost no more than `target_epsilon`.
    `spending`: what one costs at a noise multiplier. Raises ConfigError as `calibrate`."""

    def cost(sigma: float) -> float:
        return epsilon([replace(spending(sigma), steps=steps)], delta, "rdp")

    if (found := _least(cost, target_epsilon, 0.0, 1.0)) is None:
        raise ConfigError(
            f"privacy.target_epsilon={target_epsilon}: no noise keeps {steps} sums within it; raise it, lower"
            " privacy.max_participations, or take a larger secure_aggregation.modulus_bits"
        )
    return found


def _least(cost: Callable[[float], float], target: float, low: float, high: float) -> float | None:
    """By regula falsi in the Illinois variant on the logarithm of the cost, which few steps need, within `low`, `high`
    or, if that costs too much, above it. None if all up to `LARGEST_NOISE` do."""
    while (after := cost(high)) > target:
        low, high = high, 2 * high
        if high > LARGEST_NOISE:
            return None
    before = cost(low) if low else math.inf
    while target - after > 0.01 and high - low > 1e-6 * high and before > target:
        share = 0.5
        if math.isfinite(before):
            share = min(0.95, max(0.05, math.log(before / (target - 0.004)) / math.log(before / after)))
        middle = low + share * (high - low)
        if (found := cost(middle)) <= target:
            high, after = middle, found
        else:
            low, before = middle, found
    return high
