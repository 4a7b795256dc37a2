"""Attacks: from what the server sees to a score for every candidate, the higher the likelier that it was a member."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fedapp.audit.worlds import Signals

__all__ = ["ATTACKS", "Attack"]

Score = Callable[[Signals, Signals], Tensor]  # (shadow worlds, attacked worlds) -> (W, m)


@dataclass(frozen=True)
class Attack:
    """`target` is what it is made on: "updates" or "final model"."""

    target: str
    name: str
    score: Score


def threshold(signal: str) -> Score:
    """The signal itself: one threshold for all examples, and no shadow worlds (Yeom et al. 2018)."""
    return lambda shadows, attacked: vars(attacked)[signal]


def likelihood_ratio(signal: str) -> Score:
    """LiRA (Carlini et al. 2022): for each example a Gaussian of the signal over those shadow worlds that had it, and
    one over those that had not; the score is the logarithm of their ratio.

    The standard deviations are shared by all examples, as its authors do with few shadow models.
    """

    def score(shadows: Signals, attacked: Signals) -> Tensor:
        values, seen = vars(shadows)[signal], vars(attacked)[signal]
        mean_in, std_in = _gaussian(values, shadows.members)
        mean_out, std_out = _gaussian(values, ~shadows.members)
        ratio: Tensor = std_out.log() - std_in.log() - ((seen - mean_in) / std_in) ** 2 / 2
        ratio += ((seen - mean_out) / std_out) ** 2 / 2
        return ratio

    return score


def calibrated(signal: str) -> Score:
    """The signal less its mean over those shadow worlds that had not the example (Watson et al. 2022).

    It fits one number an example where LiRA fits two, and so finds weak traces with fewer shadow worlds.
    """

    def score(shadows: Signals, attacked: Signals) -> Tensor:
        seen: Tensor = vars(attacked)[signal]
        return seen - _gaussian(vars(shadows)[signal], ~shadows.members)[0]

    return score


def _gaussian(values: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Of `values` (W, m) where `chosen`: the mean of each column (m,), and one standard deviation around them."""
    counts = chosen.sum(0).clamp(min=1)
    overall = values[chosen].mean()
    mean = torch.where(chosen.any(0), (values * chosen).sum(0) / counts, overall)
    squares = ((values - mean) ** 2 * chosen).sum()
    return mean, (squares / (chosen.sum() - values.shape[1]).clamp(min=1)).sqrt().clamp(min=1e-12)


ATTACKS = (
    Attack("updates", "loss threshold", threshold("update_losses")),
    Attack("updates", "LiRA, local model", likelihood_ratio("update_confidences")),
    Attack("updates", "gradient alignment", calibrated("alignments")),
    Attack("final model", "loss threshold", threshold("final_losses")),
    Attack("final model", "loss, calibrated", calibrated("final_losses")),
    Attack("final model", "LiRA", likelihood_ratio("final_confidences")),
)
