"""compression=quantise where the server needs the sum alone: all clients round to the same levels, so that their whole
numbers can be added, in the clear or under masks.

An update is multiplied by its weight, rotated and rounded; the sum is rotated back. The range of the levels is public,
and the same for all: a planned norm of an update times the largest weight of the cohort, so that nobody's update counts
less for its weight. The server plans the norm from the share of the last updates' values, before weights, that lay
beyond the planned norm's range.
"""

import math
from collections.abc import Collection, Mapping
from logging import WARNING
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from fedapp.common.logger import log
from fedapp.common.seeding import derive_seed
from fedapp.updates.levels import level_sum, step_of, to_levels
from fedapp.updates.rotation import rotation
from fedapp.updates.step import LENGTH, StepState, UpdateRejected, UpdateStep
from fedapp.wire.instruction import Params

__all__ = ["SummedLevels"]

NORM, ROTATION, WEIGHT = "norm", "rotation", "largest_weight"
SHARE_BITS = 16  # of the share of values beyond the range
# Of normally distributed values, the share that lies beyond the range: with fewer levels a narrower range has the least
# mean squared error.
BEYOND = {8: 1e-3, 4: 5e-3, 2: 3e-2, 1: 0.13}
LONGEST = 2.0  # times the planned norm of the largest weight: a longer update is shortened to that norm
MOST_GROWTH, DECAY = 2.0, 0.8  # of the planned norm in a round, the latter where nothing lay beyond
LEAST_NORM, LARGEST_NORM = 1e-9, 2.0**20
MOST_WEIGHT = 2.0**20
RARE = math.log(1e9)  # of a round whose rounding is taken for a longer update
FAR_BEYOND = 0.5  # a share that is warned of after round 1
MOST_ROTATION = 2**63


class SummedLevels(UpdateStep):
    """`first_norm`: the planned L2 norm of a client's update in round 1; `largest_norm`: of any round."""

    def __init__(self, bits: int, first_norm: float, seed: int = 0, *, largest_norm: float = LARGEST_NORM) -> None:
        self.level_bits, self.norm, self._seed, self._largest_norm = bits, first_norm, seed, largest_norm
        self.scalars = tuple(f"beyond-{digit}" for digit in range(SHARE_BITS // bits))
        self._bits, self._width = bits, NormalDist().inv_cdf(1 - BEYOND[bits] / 2)
        self._beyond: float | None = None
        self._planned: float | None = None

    @property
    def name(self) -> str:
        return "quantise"

    def seeded(self, seed: int) -> "SummedLevels":
        return SummedLevels(self._bits, self.norm, seed, largest_norm=self._largest_norm)

    def plan(self, server_round: int) -> Params:
        return {NORM: self.norm, ROTATION: derive_seed("quantise", server_round)}

    def plan_weights(self, largest: float) -> Params:
        return {WEIGHT: float(min(max(largest, 1.0), MOST_WEIGHT))}

    def on_client(self, vector: Tensor, weight: float, params: Params, state: StepState) -> Tensor:
        """Whole numbers, the last ones of which are the digits of the share of values beyond the range."""
        length = len(vector) - len(self.scalars)
        norm, heaviest, seed = self._planned_of(params)
        rotated = rotation(length, seed).forward(vector[:length].float())
        beyond = float((rotated.abs() > self._range(norm, length)).float().mean()) if length else 0.0
        rotated, most = rotated * weight, norm * heaviest
        if (own := float(torch.linalg.vector_norm(rotated))) > LONGEST * most:
            rotated = rotated * (most / own)
        found = to_levels(rotated, self._bits, self._range(most, length), self._seed)
        return torch.cat([found, self._digits(beyond)])

    def on_total(
        self, vector: Tensor, weight: float, survivors: Collection[int], params: Params, rounding: float
    ) -> Tensor:
        """The weighted sum of the survivors' updates."""
        length, clients = len(vector) - len(self.scalars), len(survivors)
        norm, heaviest, seed = self._planned_of(params)
        summed = level_sum(vector[:length], clients, self._bits, self._range(norm * heaviest, length))
        total = rotation(length, seed).backward(summed.float()).double()
        self._plan_next(norm, self._share(vector[length:], clients))
        return torch.cat([total, torch.zeros(len(self.scalars), dtype=total.dtype)])

    def rounding(self, rounding: float, clients: int, params: Params) -> float:
        """What honest clients' rounding stays below but for one round in 10^9. Their errors are independent, have a
        mean of 0 and lie within a step of each other, so that they are sub-Gaussian with half a step (Hsu, Kakade and
        Zhang 2012, "A tail inequality for quadratic forms of subgaussian random vectors", with the identity)."""
        length = int(params[LENGTH]) - len(self.scalars)
        norm, heaviest, _ = self._planned_of(params)
        squares = length + 2 * math.sqrt(length * RARE) + 2 * RARE
        return step_of(self._bits, self._range(norm * heaviest, length)) / 2 * math.sqrt(clients * squares)

    def _range(self, norm: float, length: int) -> float:
        """Of the rotated values of an update of this norm."""
        return self._width * norm / math.sqrt(max(1, length))

    def _planned_of(self, params: Params) -> tuple[float, float, int]:
        """The planned norm of an update, the largest weight, and the seed of the rotation. Raises UpdateRejected for
        what no server of this run plans."""
        norm, heaviest, seed = params.get(NORM), params.get(WEIGHT, 1.0), params.get(ROTATION)
        if not isinstance(norm, float) or not LEAST_NORM <= norm <= self._largest_norm:
            raise UpdateRejected("no planned norm that could be")
        if not isinstance(heaviest, float) or not 1 <= heaviest <= MOST_WEIGHT:
            raise UpdateRejected("no largest weight that could be")
        if not isinstance(seed, int) or not 0 <= seed < MOST_ROTATION:
            raise UpdateRejected("no seed of a rotation")
        return norm, heaviest, seed

    # --- the plan -----------------------------------------------------------------------------------------------------

    def _plan_next(self, norm: float, beyond: float) -> None:
        """The next norm: such that as large a share lies beyond the range as is meant to, if values are normally
        distributed; at most twice and at least half the last one, and never above the run's largest. The norm of the
        sum has no say: where clients differ, it tells nothing of theirs, and it holds the rounding of this very range.
        """
        if self._planned is not None and beyond > FAR_BEYOND:
            log(
                WARNING,
                "compression: %.0f %% of the updates' values lie beyond the range of the planned norm %.3g (at most"
                " %.3g): updates are shortened; if this stays, raise compression.first_norm or .largest_norm",
                100 * beyond,
                norm,
                self._largest_norm,
            )
        self._beyond, self._planned = beyond, norm
        wanted = self._width / NormalDist().inv_cdf(1 - min(beyond, 0.9) / 2) if beyond > 0 else DECAY
        norm *= min(max(wanted, 1 / MOST_GROWTH), MOST_GROWTH)
        self.norm = min(max(norm, LEAST_NORM), self._largest_norm)

    def _digits(self, share: float) -> Tensor:
        """As levels, the digits of a share in base 2^bits, lowest first."""
        whole, base = round(share * (2**SHARE_BITS - 1)), 1 << self._bits
        digits = [whole // base**place % base - base // 2 for place in range(len(self.scalars))]
        return torch.tensor(digits, dtype=torch.float32)

    def _share(self, digits: Tensor, clients: int) -> float:
        base = 1 << self._bits
        whole = sum((digit + clients * (base // 2)) * base**place for place, digit in enumerate(digits.tolist()))
        share = float(whole) / ((1 << SHARE_BITS) - 1) / max(1, clients)
        return min(max(share, 0.0), 1.0)

    # --- the server's side of a run -----------------------------------------------------------------------------------

    def figures(self) -> dict[str, float | None]:
        return {"beyond_range": self._beyond, "planned_norm": self._planned}

    def state_dict(self) -> dict[str, Any]:
        return {NORM: self.norm}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.norm = min(float(saved[NORM]), self._largest_norm)
