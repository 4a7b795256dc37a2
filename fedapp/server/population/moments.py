"""Scaling constants from the moments that clients report, of which one may be made up."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fedapp.server.population.count_bound import CountBound
from fedapp.wire.preflight import PreflightReport

__all__ = ["are_shares", "bounded_moments", "merge_moments"]

Moments = tuple[Tensor, Tensor, Tensor]  # of each feature (features,): count, mean, sum of squared deviations
FARTHEST = 10.0  # typical spreads that a client's mean may lie from the median, and how large its deviation may be
ROUNDED = 1e-6  # of float64 arithmetic, as a share
TO_DEVIATION = 1.4826  # a normal distribution's standard deviation, in median absolute deviations


def merge_moments(parts: Sequence[Moments]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature over all clients, from the moments of each.

    Pairwise update of Chan, Golub and LeVeque (1983); numerically sound where summing squares is not.
    """
    count, mean, squares = (part.double().clone() for part in parts[0])
    for other_count, other_mean, other_squares in parts[1:]:
        total = count + other_count
        share = torch.where(total > 0, other_count / total.clamp(min=1), 0.0)
        delta = other_mean - mean
        mean = mean + delta * share
        squares = squares + other_squares + delta.square() * count * share
        count = total
    return mean, (squares / count.clamp(min=1)).sqrt()


def are_shares(report: PreflightReport, columns: Sequence[slice]) -> bool:
    """Whether the moments of `columns` can be those of a 1 in one column for each training example, and a 0 in the
    others: counts that add up, and the deviations that follow from them."""
    count, mean, squares = (report.moments[name].double() for name in ("count", "mean", "squares"))  # (clients, F)
    totals = torch.tensor(report.num_examples, dtype=torch.float64).unsqueeze(1)
    for part in columns:
        ones = (mean[:, part] * count[:, part]).round()
        sound = (count[:, part] == totals) & (ones >= 0) & (ones <= totals)
        sound &= mean[:, part] == ones / totals.clamp(min=1)  # as `moments` has it, to the last bit
        sound &= (squares[:, part] - ones * (1 - mean[:, part])).abs() <= ROUNDED * totals
        if not (sound.all() and (ones.sum(1, keepdim=True) == totals).all()):
            return False
    return True


def bounded_moments(
    moments: Mapping[int, Moments],
    num_examples: Mapping[int, int],
    bound: CountBound | None,
    shares: Sequence[slice] = (),
) -> tuple[list[Moments], dict[int, str]]:
    """The moments of clients in ascending order, so that none decides the scale alone; by client, what was bounded.

    A mean lies within `FARTHEST` spreads of the clients' median, and no deviation is larger than that. The spread of a
    feature is the larger one of the clients' median deviation and of the scaled median distance between their means, or
    where both are 0 the magnitude of the median, 1 at least. What lies within keeps every bit. Examples count as far as
    `bound` lets them. Columns of `shares` are bounded by that alone: they lie between 0 and 1 (`are_shares`).
    """
    clients = sorted(moments)
    count, mean, squares = (torch.stack([moments[c][i].double() for c in clients]) for i in range(3))  # (clients, F)
    missing = torch.where(count > 0, 0.0, torch.nan)
    means, deviations = mean + missing, (squares / count.clamp(min=1)).sqrt() + missing
    centre = _median(means)
    spread = torch.maximum(TO_DEVIATION * _median((means - centre).abs()), _median(deviations))
    spread = torch.where(spread > 0, spread, centre.abs().clamp(min=1))
    farthest = FARTHEST * spread.nan_to_num()  # nobody has a value of this feature
    for part in shares:
        farthest[part] = torch.inf
    far = ((means - centre).abs() > farthest) | (deviations > farthest)
    low, high = (centre - farthest).nan_to_num(), (centre + farthest).nan_to_num()
    mean = mean.clamp(low, high)
    squares = torch.where(deviations > farthest, farthest.square() * count, squares)
    counted = [bound.counted(num_examples[c]) / num_examples[c] if bound is not None else 1.0 for c in clients]
    share = torch.tensor(counted, dtype=torch.float64).unsqueeze(1)
    count, squares = count * share, squares * share
    said = {
        client: f"its values of {int(far[row].sum())} features lie too far from the others': bounded for scaling (the"
        f" first: feature {int(far[row].nonzero()[0])})"
        for row, client in enumerate(clients)
        if far[row].any()
    }
    return list(zip(count, mean, squares, strict=True)), said


def _median(values: Tensor) -> Tensor:
    """By column, the median of those that are no NaN; of two in the middle the one of smaller magnitude."""
    low, high = values.nanmedian(0).values, -(-values).nanmedian(0).values
    return torch.where(low.abs() <= high.abs(), low, high)
