"""One thing that is done to every update: clipping, noise, rounding, compression.

A step of one's own is a subclass in a Python module, and a YAML file in `conf/compression/` whose `_target_` names it.
"""

from collections.abc import Collection, Mapping, MutableMapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from fedapp.common.errors import FedappError
from fedapp.wire.instruction import Params

__all__ = ["LENGTH", "StepState", "UpdateRejected", "UpdateStep"]

LENGTH = "length"  # of `params`: how many values an update has, with the steps' scalars

StepState = MutableMapping[str, Tensor]  # what a step keeps of one client from round to round, on that client


class UpdateRejected(FedappError):  # noqa: N818 (what it says of the update)
    """A step does not let an update, or a sum of updates, pass. The message leaves the client, so it holds no data."""


class UpdateStep:
    """Every method returns what it is given unless a step overrides it. Vectors are one-dimensional tensors.

    On the client `on_client` runs in the order of the list; on the server `on_reply` and `on_total` run in the reverse
    order. Each may raise UpdateRejected.

    `summable`: whether outputs of `on_client` can be added up in place of the updates. If not, every client's output
    travels by itself, and `on_reply` must give back a float32 vector of the model's length.
    `bounded`: what a client sends after it is finite and nowhere above what was examined before, so that it is not
    examined again. `idle`: does nothing, and is left out of the list. `keeps_state`: uses `state`, so that a client's
    work stays on its own SuperNode. `feeds_back`: adds to an update what it did not send of earlier ones (error
    feedback). `scalars`: names of values that the step adds to the sum; they are the last entries
    of every vector. In what `on_client` is given they are 0, or what the run's protection has measured
    (`Protection.measured`). `judges`: on the client it works as `judged` made it. `level_bits`: what `on_client` gives
    are whole numbers in -2^(bits - 1) .. 2^(bits - 1) - 1 that hold the update's weight already, and are added as they
    are; such a step is the last one.
    """

    summable: ClassVar[bool] = True
    bounded: ClassVar[bool] = False
    level_bits: int | None = None
    idle: ClassVar[bool] = False
    keeps_state: ClassVar[bool] = False
    feeds_back: ClassVar[bool] = False
    judges: ClassVar[bool] = False
    scalars: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Names the step in messages; one of its kind in a run."""
        return type(self).__name__

    def conflicts(self, config: Any, parts: Any) -> None:
        """Raise ConfigError for a config (`config.schema.Config`) or parts (`learning.build.Parts`) that do not go
        with this step. Called before anything starts."""

    def in_run(self, config: Any, before: Sequence["UpdateStep"] = ()) -> "UpdateStep":
        """What it is in a run of this config, behind these other steps. Raises ConfigError."""
        return self

    def judged(self, loss: float, lr_factor: float) -> "UpdateStep":
        """The step for a client on whose training examples the global model has this mean loss, in a round with this
        factor on the learning rate."""
        return self

    def seeded(self, seed: int) -> "UpdateStep":
        """The step as it works on one client in one round; `seed` is for that alone. No secret: noise that protects
        anybody must not come from it."""
        return self

    def unseen(self) -> "UpdateStep":
        """The step for clients whose updates the server sees the sum of only. What they refuse to send there tells of
        one update: such a step changes the update instead."""
        return self

    def plan(self, server_round: int) -> Params:
        """Public values for this round, made by the server and sent to every client."""
        return {}

    def plan_weights(self, largest: float) -> Params:
        """More of them, for a cohort whose largest weight is so many times its mean."""
        return {}

    def on_client(self, vector: Tensor, weight: float, params: Params, state: StepState) -> Tensor:
        """One client's update, float32 (n,), which will count by `weight`; with `level_bits` 1 is the cohort's mean.
        `params`: what `plan` gave, and `LENGTH`."""
        return vector

    def on_reply(self, vector: Tensor, weight: float, params: Params) -> Tensor:
        """What one reply holds: a client's update (`weight` is 1), or the sum of several clients' updates, each times
        its weight; their weights sum to `weight`. A sum is only checked; a single update may be made smaller, and must
        be turned back where the step is not summable."""
        return vector

    def on_total(
        self, vector: Tensor, weight: float, survivors: Collection[int], params: Params, rounding: float
    ) -> Tensor:
        """What came of the cohort, float64 (n,): the sum over `survivors`, which rounding has moved by an L2 distance
        of at most `rounding`; infinite where a robust rule made it, which is no sum."""
        return vector

    def rounding(self, rounding: float, clients: int, params: Params) -> float:
        """By which L2 distance rounding may have moved what `on_total` gives of the sum of so many clients, where it is
        `rounding` for what that is given."""
        return rounding

    def figures(self) -> dict[str, float | None]:
        """What metrics.jsonl says of the last round, by name."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What the server's side of a resumed run needs, as JSON holds it."""
        return {}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
