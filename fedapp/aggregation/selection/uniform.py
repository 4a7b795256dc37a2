"""cohort=uniform: each client is as likely to be asked as any other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from fedapp.aggregation.selection.selection import Group, Losses, Selection

__all__ = ["Uniform"]


@dataclass(frozen=True)
class Uniform(Selection):
    words = ""

    def chosen(
        self, groups: Sequence[Group], count: int, random: Random, num_examples: Mapping[int, int], losses: Losses
    ) -> list[Group]:
        return random.sample(groups, count)
