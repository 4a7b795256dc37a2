"""What an attack's success proves: its AUC, and the least epsilon that a mechanism it succeeds against can have."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["Area", "area_under_curve", "epsilon_bound", "largest_area", "lower_bound", "p_value", "rates"]

RESAMPLED = 1000
GUESSED = (
    1.0,
    0.2,
    0.04,
)  # the shares of candidates that are guessed at; the strongest counts, and pays for the choice


@dataclass(frozen=True)
class Area:
    """The area under the ROC curve with a confidence interval."""

    value: float
    low: float
    high: float


def area_under_curve(scores: Tensor, members: Tensor, confidence: float, seed: int) -> Area:
    """Over all worlds and candidates (W, m). The interval is a bootstrap over worlds (percentiles): scores of one world
    are not independent of each other."""
    from scipy.stats import rankdata

    def area(worlds: np.ndarray) -> float:
        chosen, ranks = labels[worlds].ravel(), rankdata(values[worlds].ravel())
        ins, outs = int(chosen.sum()), int((~chosen).sum())
        return float((ranks[chosen].sum() - ins * (ins + 1) / 2) / (ins * outs)) if ins and outs else 0.5

    values, labels = scores.numpy(), members.numpy()
    random = np.random.default_rng(seed)
    drawn = [area(random.integers(len(values), size=len(values))) for _ in range(RESAMPLED)]
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Area(area(np.arange(len(values))), float(low), float(high))


def largest_area(epsilon: float, delta: float) -> float:
    """The area that no attack on a single example exceeds under (epsilon, delta)-differential privacy.

    What lies above the ROC curve is at least what lies under Kairouz, Oh and Viswanath's (2015) two lines
    1 - delta - e^epsilon x and e^-epsilon (1 - delta - x), which meet at x = (1 - delta) / (1 + e^epsilon).
    """
    return 1 - (1 - delta) ** 2 * math.exp(-epsilon) / (1 + math.exp(-epsilon))


def rates(scores: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """The ROC curve: false and true positive rate, (n + 1,) each, for every threshold from the highest down."""
    hits = members.flatten()[scores.flatten().argsort(descending=True)].double()
    true, false = hits.cumsum(0) / hits.sum().clamp(min=1), (1 - hits).cumsum(0) / (1 - hits).sum().clamp(min=1)
    zero = torch.zeros(1, dtype=torch.float64)
    return torch.cat([zero, false]), torch.cat([zero, true])


def epsilon_bound(scores: Tensor, members: Tensor, delta: float, confidence: float) -> float:
    """With `confidence`, a mechanism that let these guesses be so good has at least this epsilon at `delta`.

    In each world the candidates of highest score are guessed to be members and as many of lowest score not to be, for
    each share in `GUESSED`; scores must not have been fitted to these worlds. `scores` and `members` are (W, m).
    """
    worlds, candidates = scores.shape
    ordered = torch.gather(members, 1, scores.argsort(1))
    found = 0.0
    for share in GUESSED:
        each = max(1, int(share * candidates / 2))
        right = int((~ordered[:, :each]).sum() + ordered[:, -each:].sum())
        error = (1 - confidence) / len(GUESSED)
        found = max(found, lower_bound(members.numel(), 2 * each * worlds, right, delta, error))
    return found


def lower_bound(examples: int, guesses: int, right: int, delta: float, error: float) -> float:
    """The largest epsilon (to 0.001) that so many right guesses refute at this error probability; 0 if none."""
    if p_value(examples, guesses, right, 0.0, delta) > error:
        return 0.0
    low, high = 0.0, 50.0
    while high - low > 0.001:
        middle = (low + high) / 2
        low, high = (middle, high) if p_value(examples, guesses, right, middle, delta) <= error else (low, middle)
    return low


def p_value(examples: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """The most probable that `right` of `guesses` about the membership of `examples` (each in or out by a fair coin of
    its own) can be under (epsilon, delta)-differential privacy (Steinke, Nasr, Jagielski 2023, theorem 5.2)."""
    from scipy.stats import binom

    each = 1 / (1 + math.exp(-epsilon))  # what a single guess is right with
    tail = float(binom.sf(right - 1, guesses, each))
    below = np.arange(1, right + 1)
    excess = (binom.cdf(right - 1, guesses, each) - binom.cdf(right - 1 - below, guesses, each)) / below
    return min(1.0, tail + 2 * examples * delta * float(excess.max(initial=0.0)))
