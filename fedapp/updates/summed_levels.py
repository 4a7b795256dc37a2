"""compression=quantise where the server needs the sum alone: all clients round to the same levels, so that their whole
numbers can be added, in the clear or under masks.

An update is multiplied by its weight, rotated and rounded; the sum is rotated back. The range of the levels is public,
and the same for all: the server plans it from what the last round's sum says, its norm and the share of values that lay
beyond the range.
"""

import math
from collections.abc import Collection, Mapping
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from fedapp.common.seeding import derive_seed
from fedapp.updates.levels import level_sum, step_of, to_levels
from fedapp.updates.rotation import rotation
from fedapp.updates.step import StepState, UpdateRejected, UpdateStep
from fedapp.wire.instruction import Params

__all__ = ["SummedLevels"]

NORM, ROTATION = "norm", "rotation"
SHARE_BITS = 16  # of the share of values beyond the range
# Of normally distributed values, the share that lies beyond the range: with fewer levels a narrower range has the least
# mean squared error.
BEYOND = {8: 1e-3, 4: 5e-3, 2: 3e-2, 1: 0.13}
LONGEST = 2.0  # times the planned norm: a longer update is shortened to the planned one
GROWTH, DECAY = 4.0, 0.8  # of the planned norm in a round
LEAST_NORM, LARGEST_NORM = 1e-9, 2.0**20
MOST_ROTATION = 2**63


class SummedLevels(UpdateStep):
    """`first_norm`: the planned L2 norm of a client's update in round 1."""

    def __init__(self, bits: int, first_norm: float, seed: int = 0) -> None:
        self.level_bits, self.norm, self._seed = bits, first_norm, seed
        self.scalars = tuple(f"beyond-{digit}" for digit in range(SHARE_BITS // bits))
        self._bits, self._width = bits, NormalDist().inv_cdf(1 - BEYOND[bits] / 2)
        self._beyond: float | None = None
        self._planned: float | None = None

    @property
    def name(self) -> str:
        return "quantise"

    def seeded(self, seed: int) -> "SummedLevels":
        return SummedLevels(self._bits, self.norm, seed)

    def plan(self, server_round: int) -> Params:
        return {NORM: self.norm, ROTATION: derive_seed("quantise", server_round)}

    def on_client(self, vector: Tensor, weight: float, params: Params, state: StepState) -> Tensor:
        """Whole numbers, the last ones of which are the digits of the share of values beyond the range."""
        length = len(vector) - len(self.scalars)
        norm, largest, seed = self._planned_of(params, length)
        rotated = rotation(length, seed).forward(vector[:length].float() * weight)
        beyond = float((rotated.abs() > largest).float().mean()) if length else 0.0
        if (own := float(torch.linalg.vector_norm(rotated))) > LONGEST * norm:
            rotated = rotated * (norm / own)
        found = to_levels(rotated, self._bits, largest, self._seed)
        return torch.cat([found, self._digits(beyond)])

    def on_total(
        self, vector: Tensor, weight: float, survivors: Collection[int], params: Params, rounding: float
    ) -> Tensor:
        """The weighted sum of the survivors' updates."""
        length, clients = len(vector) - len(self.scalars), len(survivors)
        norm, largest, seed = self._planned_of(params, length)
        summed = level_sum(vector[:length], clients, self._bits, largest)
        total = rotation(length, seed).backward(summed.float()).double()
        mean = float(torch.linalg.vector_norm(total)) / weight if weight > 0 else 0.0
        self._plan_next(norm, mean, self._share(vector[length:], clients), clients)
        return torch.cat([total, torch.zeros(len(self.scalars), dtype=total.dtype)])

    def rounding(self, rounding: float, params: Params) -> float:
        length = int(params["length"]) - len(self.scalars)
        return rounding * step_of(self._bits, self._planned_of(params, length)[1])

    def _planned_of(self, params: Params, length: int) -> tuple[float, float, int]:
        """The planned norm of a weighted update, the range of its rotated values, and the seed of the rotation. Raises
        UpdateRejected for what no server of this code plans."""
        norm, seed = params.get(NORM), params.get(ROTATION)
        if not isinstance(norm, float) or not LEAST_NORM <= norm <= LARGEST_NORM:
            raise UpdateRejected("no planned norm that could be")
        if not isinstance(seed, int) or not 0 <= seed < MOST_ROTATION:
            raise UpdateRejected("no seed of a rotation")
        return norm, self._width * norm / math.sqrt(max(1, length)), seed

    # --- the plan -----------------------------------------------------------------------------------------------------

    def _plan_next(self, norm: float, mean: float, beyond: float, clients: int) -> None:
        """The next norm: such that as large a share lies beyond the range as is meant to, if values are normally
        distributed. It is no less than the norm of the mean update, which no mean of norms is below, and no more than
        2 sqrt(n) times it, whatever share clients claim: independent updates of n clients have sqrt(n) times it."""
        self._beyond, self._planned = beyond, norm
        if beyond > 0:
            found = self._width / NormalDist().inv_cdf(1 - min(beyond, 0.9) / 2)
            norm *= min(max(found, DECAY), GROWTH)
        else:
            norm *= DECAY
        norm = min(max(norm, mean), 2 * math.sqrt(clients) * mean) if mean > 0 else norm
        self.norm = min(max(norm, LEAST_NORM), LARGEST_NORM / 2)

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
        self.norm = float(saved[NORM])
