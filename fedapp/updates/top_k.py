"""compression=top_k: the largest values of an update and where they are; with error feedback what was not sent is added
to the client's next update (Seide et al. 2014; Stich et al. 2018, "Sparsified SGD with Memory"). While the model
changes fast more is sent: the share falls over the first rounds (Lin et al. 2018, "Deep Gradient Compression").

Places are coded as one byte each, within runs of 256, and a count for each run. Values are shares of the largest in
steps of 1/127, another byte each; what that rounds away stays in the residual, too.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from fedapp.common.errors import ConfigError
from fedapp.updates.per_reply import LARGEST_SCALE, Bytes, PerReply
from fedapp.updates.step import StepState, UpdateStep
from fedapp.wire.instruction import Params

__all__ = ["TopKUpdates"]

RESIDUAL, SHARE = "residual", "share"
STEPS = 127  # of a value, up to the largest
RUN = 256  # values whose places take one byte
SCALE = struct.Struct("<f")


@dataclass(frozen=True)
class TopKUpdates(UpdateStep):
    """The keys of `conf/compression/top_k.yaml`, which says what each means."""

    share: Annotated[float, Field(gt=0, le=1)]
    error_feedback: bool
    first_share: Annotated[float, Field(gt=0, le=1)]
    warm_up_rounds: Annotated[int, Field(ge=0)]

    def in_run(self, config: Any, before: Sequence[UpdateStep] = ()) -> UpdateStep:
        limit = config.strategy.max_update_norm
        if self.error_feedback and limit is not None:
            raise ConfigError(
                f"compression.error_feedback=true: with strategy.max_update_norm={limit:g} the"
                " server would reject honest clients, whose updates and what they did not send before are longer than"
                " one update; set compression.error_feedback=false, or strategy.max_update_norm=null"
            )
        return LargestValues(
            share=self.share,
            error_feedback=self.error_feedback,
            first_share=self.first_share,
            warm_up_rounds=self.warm_up_rounds,
            tail=sum(len(step.scalars) for step in before),
        )


@dataclass(frozen=True, kw_only=True)
class LargestValues(PerReply):
    """Of n values the largest ceil(share * n). In the first `warm_up_rounds` the share falls geometrically from
    `first_share` to `share`."""

    share: float
    error_feedback: bool
    first_share: float = 1.0
    warm_up_rounds: int = 0

    @property
    def name(self) -> str:
        return "top_k"

    @property
    def keeps_state(self) -> bool:  # type: ignore[override]
        """The residual."""
        return self.error_feedback

    @property
    def feeds_back(self) -> bool:  # type: ignore[override]
        return self.error_feedback

    def plan(self, server_round: int) -> Params:
        if server_round > self.warm_up_rounds or self.first_share <= self.share:
            return {}
        done = (server_round - 1) / self.warm_up_rounds
        return {SHARE: self.first_share ** (1 - done) * self.share**done}

    def planned(self, params: Params) -> "LargestValues":
        if SHARE not in params:
            return self
        share = params[SHARE]
        if not isinstance(share, float) or not 0 < share <= 1:
            raise ValueError("no share of values that could be")
        return replace(self, share=share)

    def encode(self, update: Tensor, state: StepState) -> Bytes:
        length, wanted = len(update), update
        if RESIDUAL in state:
            kept = state[RESIDUAL]
            if kept.shape != update.shape or kept.dtype != torch.float32:
                raise ValueError("the residual of this client is of another model")
            wanted = update + kept
        count = self._count(length)
        marked = torch.zeros(length, dtype=torch.bool)
        marked[torch.topk(wanted.abs(), count, sorted=False).indices] = True
        places = marked.nonzero().view(-1).numpy()  # in order, in less time than sorting takes
        chosen = wanted.numpy()[places]
        scale = np.float32(np.abs(chosen).max(initial=0.0))
        shares = np.rint(chosen / scale * STEPS if scale else chosen).astype("i1")
        if self.error_feedback:
            residual = wanted.clone()
            residual[torch.from_numpy(places)] -= torch.from_numpy(_values(shares, scale))
            state[RESIDUAL] = residual
        runs = np.bincount(places // RUN, minlength=-(-length // RUN)).astype("<u2")
        parts = (np.frombuffer(SCALE.pack(scale), np.uint8), runs, (places % RUN).astype(np.uint8), shares)
        return np.concatenate([part.view(np.uint8) for part in parts])

    def decode(self, packed: Bytes, length: int) -> Tensor:
        count, runs = self._count(length), -(-length // RUN)
        if len(packed) != SCALE.size + 2 * runs + 2 * count:
            needed = SCALE.size + 2 * runs + 2 * count
            raise ValueError(f"{len(packed)} bytes, and {count} of {length} values take {needed}")
        (scale,) = SCALE.unpack(packed[: SCALE.size].tobytes())
        if not math.isfinite(scale) or not 0 <= scale <= LARGEST_SCALE:
            raise ValueError(f"a scale of {scale:g}, which no update has")
        rest = packed[SCALE.size :]
        in_run = np.frombuffer(rest[: 2 * runs].tobytes(), "<u2").astype(np.int64)
        if int(in_run.sum()) != count:
            raise ValueError(f"{int(in_run.sum())} indices, and {count} values")
        places = np.repeat(np.arange(runs) * RUN, in_run) + rest[2 * runs : 2 * runs + count]
        if count > 1 and not (np.diff(places) > 0).all():
            raise ValueError("an index that is there twice, or out of order")
        if count and places[-1] >= length:
            raise ValueError(f"index {places[-1]} is out of range, the update has {length} values")
        shares = rest[2 * runs + count :].view("i1")
        if (shares < -STEPS).any():
            raise ValueError("a value above the largest one")
        found = np.zeros(length, np.float32)
        found[places] = _values(shares, np.float32(scale))
        return torch.from_numpy(found)

    def seeded(self, seed: int) -> UpdateStep:
        return replace(self, seed=seed)

    def _count(self, length: int) -> int:
        return min(length, math.ceil(round(self.share * length, 9)))


def _values(shares: NDArray[np.int8], scale: np.float32) -> NDArray[np.float32]:
    return shares.astype(np.float32) * (scale / np.float32(STEPS))
