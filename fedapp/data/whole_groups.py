"""Splits that keep together what belongs together, such as the examples of one patient, and hold out what came last."""

import torch
from torch import Tensor

from fedapp.data.source import Examples

__all__ = ["group_rows", "split_whole"]


def split_whole(examples: Examples, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Sorted indices of what is kept, and of what is held out: about `fraction` of the examples, never all.

    With times these are the latest; else groups are drawn with `seed`, and each class, as that of most of a group's
    examples, gives its share. With both, the groups whose last example is latest. Nothing is held out where that would
    separate a group, or examples of the same time.
    """
    rows = group_rows(examples)
    if examples.times is not None:
        last = torch.stack([examples.times[group].max() for group in rows])
        order = torch.sort(last, descending=True, stable=True).indices.tolist()
        held = _latest(rows, order, last, fraction * len(examples))
    else:
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
        held = _drawn(rows, order, _classes(examples, rows), fraction)
    chosen = set(held)
    if len(chosen) == len(rows):
        chosen.clear()
    sides = [torch.cat(side) if side else torch.tensor([], dtype=torch.int64) for side in _sides(rows, chosen)]
    return sides[0].sort().values, sides[1].sort().values


def group_rows(examples: Examples) -> list[Tensor]:
    """By group, the sorted rows of its examples; without groups each example is one."""
    if examples.groups is None:
        return list(torch.split(torch.arange(len(examples)), 1))
    _, codes, counts = torch.unique(examples.groups, return_inverse=True, return_counts=True)
    return list(torch.split(torch.argsort(codes, stable=True), counts.tolist()))


def _sides(rows: list[Tensor], held: set[int]) -> tuple[list[Tensor], list[Tensor]]:
    return [r for at, r in enumerate(rows) if at not in held], [r for at, r in enumerate(rows) if at in held]


def _latest(rows: list[Tensor], order: list[int], last: Tensor, wanted: float) -> list[int]:
    """Groups from the latest on, as many as have `wanted` examples at most; those of one time together."""
    held: list[int] = []
    count, at = 0, 0
    while at < len(order):
        end = at
        while end < len(order) and last[order[end]] == last[order[at]]:
            end += 1
        size = sum(len(rows[group]) for group in order[at:end])
        if round(count + size - wanted, 9) > 0 and (held or wanted < 1):
            break
        held += order[at:end]
        count, at = count + size, end
    return held


def _classes(examples: Examples, rows: list[Tensor]) -> list[int]:
    """By group, the class of most of its examples; all the same where there are no classes."""
    if examples.targets.is_floating_point() or examples.targets.dim() > 1:
        return [0] * len(rows)
    return [int(torch.mode(examples.targets[group]).values) for group in rows]


def _drawn(rows: list[Tensor], order: list[int], classes: list[int], fraction: float) -> list[int]:
    held: list[int] = []
    for kind in sorted(set(classes)):
        mine = [group for group in order if classes[group] == kind]
        wanted = round(fraction * sum(len(rows[group]) for group in mine), 9)
        count = 0
        for group in mine:
            if count + len(rows[group]) <= wanted:
                held.append(group)
                count += len(rows[group])
    if not held and len(rows) > 1 and fraction * sum(map(len, rows)) >= 1:
        # All are larger than their class's share: one of them, if it leaves most for training.
        small = min(order, key=lambda group: len(rows[group]))
        held = [small] if len(rows[small]) * 2 <= sum(map(len, rows)) else []
    return held
