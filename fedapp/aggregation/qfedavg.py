"""q-FedAvg: clients on whose examples the model does badly count for more (Li et al., ICLR 2020, algorithm 2).

With F the global model's loss on a client's training examples, u its update and L = 1 / learning rate, the model moves
by the sum of p F^q u over the sum of p (F^q + q L F^(q-1) |u|^2), where p is the client's weight. Both are sums, so
they are added exactly, and no client's own loss is seen where a SuperNode or a protocol adds updates up. q = 0 is
FedAvg; the larger q is, the more alike the losses become.

A loss is taken relative to a public `reference`, the mean loss of the round before: it cancels in the quotient, and
keeps F^q where fixed point is precise.
"""

import copy
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedapp.common.errors import ConfigError
from fedapp.config import Config, instantiate
from fedapp.privacy.option import privacy_of
from fedapp.updates.step import StepState, UpdateRejected, UpdateStep
from fedapp.wire.instruction import Params

__all__ = ["QFedAvg"]

LEAST = 1e-4  # of the reference: a loss counts for no less, so that F^(q-1) stays finite where a model fits perfectly
REFERENCE = "reference"


class QFedAvg(UpdateStep):
    """`q`: how much fairness counts. `lipschitz`: L; None: 1 / optimizer.lr, which the round's factor divides, too."""

    judges: ClassVar[bool] = True
    scalars = ("denominator", "loss")

    def __init__(
        self, q: Annotated[float, Field(ge=0, le=10)], lipschitz: Annotated[float, Field(gt=0)] | None = None
    ) -> None:
        self.q, self.lipschitz = q, lipschitz
        self._loss, self._lr_factor, self._reference = math.nan, 1.0, 1.0

    def in_run(self, config: Config, before: Sequence[UpdateStep] = ()) -> "QFedAvg":
        made = copy.copy(self)
        if made.lipschitz is None:
            rate = config.optimizer.get("lr")
            if not isinstance(rate, int | float) or not rate > 0:
                raise ConfigError(
                    f"strategy.fairness.lipschitz=null: is 1 / optimizer.lr, which is {rate}; give a number"
                )
            made.lipschitz = 1 / rate
        return made

    def conflicts(self, config: Config, parts: Any) -> None:
        key = "strategy.fairness (q-FedAvg)"
        if not privacy_of(config).discloses_metrics:
            raise ConfigError(
                f"{key}: each client's loss decides how much its update counts and goes into the sum without noise,"
                " and under this privacy option no loss may leave a client; use strategy=fedavg"
            )
        if "clip" in config.secure_aggregation:
            raise ConfigError(
                f"{key}: a client's share of the divisor has no public bound, and secure_aggregation sums values of"
                " -clip..clip only, so that the sum would be wrong and nobody would know; use strategy=fedavg or"
                " secure_aggregation=none"
            )
        if config.strategy.max_update_norm is not None:
            raise ConfigError(
                f"strategy.max_update_norm={config.strategy.max_update_norm}: {key} multiplies updates by a power of"
                " the loss, so a bound on their norm would say nothing; set it to null"
            )
        if not instantiate("compression", config.compression).idle:
            raise ConfigError(f"compression: {key} divides by a value that must arrive as it is; use compression=none")
        if parts.task.criterion.lowest < 0:
            raise ConfigError(f"task.loss: {key} raises the loss to a power, and this one may be negative")
        trained = {name for name, _ in parts.model.named_parameters()}
        kept = [name for name, value in parts.model.state_dict().items() if value.is_floating_point()]
        if moving := [name for name in kept if name not in trained and name.endswith(("running_mean", "running_var"))]:
            raise ConfigError(
                f"model: {key} measures how far a client has moved, and {moving[0]} moves without a gradient; choose a"
                " model with model.norm=group"
            )

    def judged(self, loss: float, lr_factor: float) -> "QFedAvg":
        made = copy.copy(self)
        made._loss, made._lr_factor = loss, lr_factor
        return made

    def plan(self, server_round: int) -> Params:
        return {REFERENCE: self._reference}

    def on_client(self, vector: Tensor, weight: float, params: Params, state: StepState) -> Tensor:
        if not math.isfinite(self._loss):
            raise UpdateRejected("the global model's loss on this client's training examples is not finite")
        reference = float(params[REFERENCE])
        relative = max(self._loss / reference, LEAST)
        factor, update = relative**self.q, vector[: -len(self.scalars)]
        moved = float(update.double().square().sum())
        steepness = self.lipschitz / self._lr_factor if self.lipschitz and self._lr_factor else 0.0
        divisor = factor * (1 + self.q * steepness * moved / (relative * reference))
        return torch.cat([update * factor, torch.tensor([divisor, self._loss], dtype=vector.dtype)])

    def on_reply(self, vector: Tensor, weight: float, params: Params) -> Tensor:
        divisor, loss = vector[-len(self.scalars) :].tolist()
        if not (0 < divisor < math.inf and 0 <= loss < math.inf):
            raise UpdateRejected(f"impossible values of q-FedAvg: divisor {divisor:g}, loss {loss:g}")
        return vector

    def on_total(
        self, vector: Tensor, weight: float, survivors: Collection[int], params: Params, rounding: float
    ) -> Tensor:
        divisor, loss = vector[-len(self.scalars) :].tolist()
        if not divisor > 0:
            raise UpdateRejected(f"the clients' divisors of q-FedAvg add up to {divisor:g}")
        if loss > 0:
            self._reference = loss / weight
        return vector.mul(weight / divisor)  # the strategy divides by the weight

    def figures(self) -> dict[str, float | None]:
        return {"reference_loss": self._reference}

    def state_dict(self) -> dict[str, Any]:
        return {REFERENCE: self._reference}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self._reference = float(saved[REFERENCE])
