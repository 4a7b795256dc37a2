"""How the updates of a round become one: the interface, and rules that withstand some hostile clients.

A rule is made anew for each round with the template of what is aggregated, takes screened updates as they come, and
gives a total and its weight (`weighted_mean.py`), or another mean and a weight of 1. Robust rules look at single
updates: memory is O(cohort * model), a SuperNode that hosts several clients sends each update by itself, and no client
weighs more than another, since what it says of its number of examples is as little to be trusted as its update.
"""

from collections.abc import Iterable, Mapping
from typing import ClassVar, Protocol

import numpy as np
import torch
from flwr.app import RecordDict
from torch import Tensor

from fedapp.common.errors import ConfigError
from fedapp.common.state_digest import State
from fedapp.flower.robust_rules import select_multikrum, trim_mean
from fedapp.wire.records import state_to_arrays

__all__ = ["AggregationRule", "Median", "MultiKrum", "TrimmedMean"]

Result = tuple[dict[str, Tensor], float]


class AggregationRule(Protocol):
    """`each`: whether it needs single updates, and `fewest`: how many. `unused`: after `result`, whom it left out."""

    each: ClassVar[bool]
    fewest: int
    unused: dict[int, str]

    def add(self, client: int, update: State, weight: float, largest: Mapping[str, float] | None = None) -> None:
        """Take one client's screened update with its normalised weight; `largest` is from its screening."""

    def screen_sum(self, totals: State, weights: Iterable[float]) -> str | None:
        """Why a SuperNode's sum over several clients cannot be taken, or None."""

    def add_sum(self, totals: State, weights: Iterable[float]) -> None:
        """Take a SuperNode's screened sum over several clients of these weights."""

    def result(self) -> Result:
        """What the updates come to, as float64, and the weight that it is to be divided by."""


class _SingleUpdates:
    """What robust rules share: they keep every update, and look at them in the order of clients."""

    each: ClassVar[bool] = True
    fewest = 1

    def __init__(self, template: State) -> None:
        self._updates: dict[int, State] = {}
        self.unused: dict[int, str] = {}

    def add(self, client: int, update: State, weight: float, largest: Mapping[str, float] | None = None) -> None:
        self._updates[client] = update

    def screen_sum(self, totals: State, weights: Iterable[float]) -> str | None:
        return "a sum over several clients, where single updates were asked for"

    def add_sum(self, totals: State, weights: Iterable[float]) -> None:
        raise ValueError("a robust rule takes no sums")

    def _stacked(self) -> dict[str, np.ndarray]:
        """By key, the updates as one float64 array (clients, *shape)."""
        rows = [self._updates[client] for client in sorted(self._updates)]
        return {key: np.stack([row[key].double().numpy() for row in rows]) for key in rows[0]}


class Median(_SingleUpdates):
    """The median of each coordinate (Yin et al. 2018)."""

    fewest = 3

    def result(self) -> Result:
        return {key: torch.from_numpy(np.asarray(np.median(v, axis=0))) for key, v in self._stacked().items()}, 1.0


class TrimmedMean(_SingleUpdates):
    """The mean of each coordinate without the share `beta` of highest and of lowest values (Yin et al. 2018)."""

    def __init__(self, template: State, *, beta: float = 0.2) -> None:
        super().__init__(template)
        if not 0 < beta < 0.5:
            raise ConfigError(f"strategy.aggregation.beta={beta}: must lie between 0 and 0.5")
        self._beta = beta
        self.fewest = int(np.ceil(1 / beta))  # with fewer there is nothing to trim

    def result(self) -> Result:
        found = {key: torch.from_numpy(np.asarray(trim_mean(v, self._beta))) for key, v in self._stacked().items()}
        return found, 1.0


class MultiKrum(_SingleUpdates):
    """The mean of the `num_selected` updates that lie closest to their neighbours (Blanchard et al. 2017).

    Withstands `num_malicious` hostile clients out of at least 2 * `num_malicious` + 3. Krum selects one; without
    `num_selected` it is all but the hostile and two.
    """

    def __init__(self, template: State, *, num_malicious: int = 1, num_selected: int | None = None) -> None:
        super().__init__(template)
        if num_malicious < 0 or (num_selected is not None and num_selected < 1):
            raise ConfigError(
                f"strategy.aggregation: num_malicious={num_malicious}, num_selected={num_selected}: must be at least 0"
                " and at least 1"
            )
        self._num_malicious, self._num_selected = num_malicious, num_selected
        # Blanchard et al. need n >= 2f + 3, and select at most n - f - 2.
        self.fewest = max(2 * num_malicious + 3, num_malicious + 2 + (num_selected or 1))

    def result(self) -> Result:
        clients = sorted(self._updates)
        selected = len(clients) - self._num_malicious - 2 if self._num_selected is None else self._num_selected
        doubles = {c: {key: value.double() for key, value in self._updates[c].items()} for c in clients}
        records = {c: RecordDict({"arrays": state_to_arrays(doubles[c])}) for c in clients}
        chosen = select_multikrum(list(records.values()), self._num_malicious, selected)
        kept = [c for c in clients if any(records[c] is record for record in chosen)]
        self.unused = dict.fromkeys(set(clients) - set(kept), "not selected: too far from the others' updates")
        return {key: torch.stack([doubles[c][key] for c in kept]).mean(0) for key in doubles[kept[0]]}, 1.0
