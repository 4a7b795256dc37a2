"""cohort=by_data: clients are drawn in proportion to their examples, and then count alike.

As in Li et al. (On the convergence of FedAvg on non-IID data, ICLR 2020, scheme I), but without replacement: nobody
trains twice in a round.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from fedapp.aggregation.selection.selection import Group, Losses, Selection, check_has_choice, weighted_sample
from fedapp.common.errors import ConfigError
from fedapp.config import Config
from fedapp.learning.build import Parts
from fedapp.privacy.option import privacy_of

__all__ = ["ByData"]


@dataclass(frozen=True)
class ByData(Selection):
    words = ", drawn by their examples"

    def conflicts(self, config: Config, parts: Parts) -> None:
        if privacy_of(config).sampling(config) is not None:
            raise ConfigError(
                "cohort=by_data: under client-level privacy each client is drawn with the same secret chance, on which"
                " epsilon rests, and its number of examples is not told; use cohort=uniform"
            )
        check_has_choice(config, "cohort=by_data")

    def chosen(
        self, groups: Sequence[Group], count: int, random: Random, num_examples: Mapping[int, int], losses: Losses
    ) -> list[Group]:
        return weighted_sample(groups, count, random, num_examples)
