"""How a round's cohort is chosen from those who can be asked: the interface of the options of the group `cohort`.

An option is a function of the run's seed, the round, the set of clients and, where it asks for them, losses of the
model that the round begins with. So a resumed run chooses as one that was never stopped: nothing is kept.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import ClassVar

from fedapp.common.errors import ConfigError
from fedapp.config import Config, option
from fedapp.learning.build import Parts

__all__ = ["Losses", "Selection", "check_has_choice", "selection_of", "weighted_sample"]

Group = tuple[int, ...]  # clients that are asked together
Losses = Callable[[Sequence[int]], Mapping[int, float]]
"""By client, the global model's loss on its training examples; who does not reply is not there."""


class Selection(ABC):
    """`words`: what the log says of it. `asks`: candidates are asked for their losses before a cohort is chosen."""

    words: str
    asks: ClassVar[bool] = False

    def conflicts(self, config: Config, parts: Parts) -> None:  # noqa: B027 (there may be none)
        """Raise ConfigError for a config or parts that do not go with this option."""

    @abstractmethod
    def chosen(
        self, groups: Sequence[Group], count: int, random: Random, num_examples: Mapping[int, int], losses: Losses
    ) -> list[Group]:
        """`count` of these groups. `random` is seeded by run and round. `num_examples`: by client, those that count."""


def weighted_sample(
    groups: Sequence[Group], count: int, random: Random, num_examples: Mapping[int, int]
) -> list[Group]:
    """`count` groups without replacement, each drawn in proportion to its examples among those that are left
    (Efraimidis & Spirakis 2006)."""
    keys = []
    for group in groups:
        size = sum(num_examples[client] for client in group)
        waiting = -math.log(1 - random.random())  # drawn for each, so that none depends on another's size
        keys.append((waiting / size if size else math.inf, group))
    return [group for _, group in sorted(keys)[:count]]


def check_has_choice(config: Config, name: str) -> None:
    """Raises ConfigError where clients that are drawn by their size would count by it once more, and where every round
    asks all of them."""
    if config.strategy.weighting != "uniform":
        raise ConfigError(
            f"strategy.weighting={config.strategy.weighting}: {name} draws clients by how many examples they have, so"
            " that this would count a second time; set strategy.weighting=uniform"
        )
    if config.federation.fraction_train == 1:
        raise ConfigError(
            f"federation.fraction_train=1.0: every round asks all clients, so {name} has nothing to choose; set"
            " federation.fraction_train below 1, or cohort=uniform"
        )


def selection_of(config: Config) -> Selection:
    """Raises ConfigError."""
    return option("cohort", config.cohort, Selection)
