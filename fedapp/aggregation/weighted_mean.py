"""strategy.aggregation of most strategies: the weighted mean."""

from collections.abc import Iterable, Mapping
from typing import ClassVar

from torch import Tensor

from fedapp.aggregation.exact_sum import WeightedSum
from fedapp.common.state_digest import State

__all__ = ["WeightedMean"]


class WeightedMean:
    """The weighted mean (McMahan et al. 2017), exact and in O(model) memory."""

    each: ClassVar[bool] = False
    fewest = 1

    def __init__(self, template: State) -> None:
        self._sum = WeightedSum(template)
        self.unused: dict[int, str] = {}

    def add(self, client: int, update: State, weight: float, largest: Mapping[str, float] | None = None) -> None:
        self._sum.add(update, weight, largest)

    def screen_sum(self, totals: State, weights: Iterable[float]) -> str | None:
        return self._sum.screen_partial(totals, weights)

    def add_sum(self, totals: State, weights: Iterable[float]) -> None:
        self._sum.add_partial(totals, weights)

    def result(self) -> tuple[dict[str, Tensor], float]:
        return self._sum.sum(), self._sum.weight
