"""Privacy accounting by Opacus: epsilon of a whole history of DP-SGD steps, and the noise that keeps to a budget."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from fedapp.common.errors import ConfigError

__all__ = ["Spending", "calibrate", "epsilon"]

# Above this epsilon, or this over the square root of the steps, PRV takes minutes and all memory, or gives up. RDP's
# bound, which is no smaller, is used instead.
LARGEST_PRV, MOST_PRV_WORK = 50.0, 5000.0
LARGEST_NOISE = 1e4


@dataclass(frozen=True)
class Spending:
    """`steps` of DP-SGD: each example sampled with probability `sample_rate`, noise of `noise_multiplier` times the
    clipping norm added to the sum of gradients (Abadi et al. 2016)."""

    noise_multiplier: float
    sample_rate: float
    steps: int


def epsilon(history: Iterable[Spending], delta: float, accountant: str) -> float:
    """Epsilon of all of `history` together at `delta`, by `accountant` "rdp" or "prv"; infinite without noise.

    The order does not matter: RDP (Mironov et al. 2019) and PRV (Gopi et al. 2021) compose by addition. Above 50, and
    over so many steps that PRV would not end (25 million at an epsilon of 1), the value is RDP's for both.
    """
    steps: Counter[tuple[float, float]] = Counter()
    for spent in history:
        steps[spent.noise_multiplier, spent.sample_rate] += spent.steps
    merged = tuple((sigma, rate, count) for (sigma, rate), count in sorted(steps.items()) if count)
    if not merged:
        return 0.0
    if any(sigma == 0 for sigma, _, _ in merged):
        return math.inf
    bound = _epsilon(merged, delta, "rdp")
    most = min(LARGEST_PRV, MOST_PRV_WORK / math.sqrt(sum(count for _, _, count in merged)))
    return _epsilon(merged, delta, accountant) if accountant != "rdp" and bound <= most else bound


@lru_cache(maxsize=256)
def _epsilon(history: tuple[tuple[float, float, int], ...], delta: float, accountant: str) -> float:
    from fedapp.privacy.opacus_internals import epsilon_of  # 2 s

    return epsilon_of(list(history), delta, accountant)


@lru_cache(maxsize=16)
def calibrate(target_epsilon: float, delta: float, sample_rate: float, steps: int, accountant: str) -> float:
    """The least noise multiplier (to 0.01 in epsilon) with which `steps` cost no more than `target_epsilon`.

    As Opacus's get_noise_multiplier, but without asking PRV for large epsilons. Raises ConfigError where no noise
    multiplier up to `LARGEST_NOISE` is enough.
    """

    def cost(sigma: float) -> float:
        return epsilon([Spending(sigma, sample_rate, steps)], delta, accountant)

    low, high = 0.0, 1.0
    while (spent := cost(high)) > target_epsilon:
        low, high = high, 2 * high
        if high > LARGEST_NOISE:
            raise ConfigError(
                f"privacy.target_epsilon={target_epsilon}: no noise keeps {steps} steps at sample rate {sample_rate}"
                " within it; raise it, or plan fewer rounds"
            )
    while target_epsilon - spent > 0.01 and high - low > 1e-6 * high:
        middle = (low + high) / 2
        if (found := cost(middle)) <= target_epsilon:
            high, spent = middle, found
        else:
            low = middle
    return high
