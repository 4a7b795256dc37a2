"""The list of a run's update steps, and how a model's tensors become the vector that steps work on."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from fedapp.common.state_digest import State
from fedapp.config import Config, option
from fedapp.updates.norm_limit import NormLimit
from fedapp.updates.step import LENGTH, StepState, UpdateRejected, UpdateStep
from fedapp.updates.vectors import flatten, joined, unflatten
from fedapp.wire.instruction import Params

__all__ = ["ENCODED", "UpdateSteps", "flatten", "scalar_key", "steps_of", "unflatten"]

ENCODED = "encoded"  # the one tensor of an update whose steps gave something that cannot be summed
SCALAR = "scalar/"  # and its name: an entry that a step adds to the sum


def scalar_key(name: str) -> str:
    """Under which an update holds a scalar that a step adds to it."""
    return f"{SCALAR}{name}"


@dataclass(frozen=True)
class UpdateSteps:
    """Without steps an update is passed on as it is, and nothing is copied.

    The steps of a round work with the values of its plan, which are in the instruction (`Instruction.steps`).
    """

    steps: Sequence[UpdateStep] = ()

    @property
    def summable(self) -> bool:
        return all(step.summable for step in self.steps)

    @property
    def bounded(self) -> bool:
        """Whether what was examined before the steps need not be examined after them."""
        return all(step.bounded for step in self.steps)

    @property
    def keeps_state(self) -> bool:
        return any(step.keeps_state for step in self.steps)

    @property
    def judges(self) -> bool:
        return any(step.judges for step in self.steps)

    def judged(self, loss: float, lr_factor: float) -> "UpdateSteps":
        """For a client on whose training examples the global model has this loss."""
        return UpdateSteps(tuple(step.judged(loss, lr_factor) for step in self.steps))

    @property
    def level_bits(self) -> int | None:
        """Of the whole numbers that clients send, where they do."""
        return self.steps[-1].level_bits if self.steps else None

    def unseen(self) -> "UpdateSteps":
        """For clients whose updates the server sees the sum of only."""
        return UpdateSteps(tuple(step.unseen() for step in self.steps))

    def template(self, template: State) -> State:
        """What of a model is summed, with the scalars that steps add to it."""
        names = [name for step in self.steps for name in step.scalars]
        return {**template, **{scalar_key(name): torch.zeros(1) for name in names}} if names else template

    def plan(self, server_round: int, weights: Collection[float] = ()) -> dict[str, Params]:
        """`weights`: of the cohort, in any unit."""
        largest = max(weights) * len(weights) / total if (total := math.fsum(weights)) > 0 else 1.0
        found = {step.name: {**step.plan(server_round), **step.plan_weights(largest)} for step in self.steps}
        return {name: params for name, params in found.items() if params}

    def on_client(
        self,
        update: State,
        template: State,
        weight: float,
        plan: Mapping[str, Params],
        states: Mapping[str, StepState],
        seed: int = 0,
        *,
        in_place: bool = False,
    ) -> State:
        """One client's update as it is to be sent. `states`: by step, what it keeps of this client. A scalar that
        `update` does not hold (`scalar_key`) is 0. `seed`: of this client in this round. `in_place`: the memory of
        `update` may be overwritten, and be that of the result."""
        if not self.steps:
            return update
        full = self.template(template)
        given = {**{name: full[name] for name in full.keys() - template.keys()}, **update}
        vector = joined(given, full) if in_place else flatten(given, full)
        size = len(vector)
        for step in self.steps:
            params = _params(step, plan, size)
            vector = step.seeded(seed).on_client(vector, weight, params, states.get(step.name, {}))
        if vector.dtype == torch.bfloat16:
            names = ", ".join(step.name for step in self.steps)
            raise UpdateRejected(
                f"update steps {names}: bfloat16 cannot travel as it is; send vector.view(torch.int16)"
            )
        return unflatten(vector, full) if self.summable else {ENCODED: vector}

    def on_reply(self, update: State, template: State, weight: float, plan: Mapping[str, Params]) -> State:
        """The update, or the sum of updates, that a reply holds: checked, made smaller, or turned back into the form of
        `template`, which has the steps' scalars."""
        if not self.steps:
            return update
        if not self.summable and update.keys() != {ENCODED}:
            raise UpdateRejected("bad reply: no encoded update")
        sent = vector = flatten(update, template) if self.summable else update[ENCODED]
        size = sum(value.numel() for value in template.values())
        for step in reversed(self.steps):
            vector = step.on_reply(vector, weight, _params(step, plan, size))
        return update if self.summable and vector is sent else unflatten(vector, template)

    def on_total(
        self, total: State, weight: float, survivors: Collection[int], plan: Mapping[str, Params], rounding: float
    ) -> State:
        """The cohort's sum, float64 tensors; without the scalars, which are for the steps alone."""
        if not self.steps:
            return total
        vector = flatten(total, total)
        for step in reversed(self.steps):
            params = _params(step, plan, len(vector))
            vector = step.on_total(vector, weight, survivors, params, rounding)
            rounding = step.rounding(rounding, len(survivors), params)
        found = unflatten(vector, total)
        return {name: value for name, value in found.items() if not name.startswith(SCALAR)}


def steps_of(config: Config, private: Sequence[UpdateStep] = ()) -> UpdateSteps:
    """The run's update steps, in the clients' order. `private`: those of its privacy option. Raises ConfigError."""
    compression = option("compression", config.compression, UpdateStep)
    largest, fairness = config.strategy.max_update_norm, config.strategy.fairness
    limit = [NormLimit(largest)] if largest is not None else []
    fair = [] if fairness is None else [option("strategy.fairness", fairness, UpdateStep).in_run(config)]
    before = [step for step in (*limit, *private, *fair) if not step.idle]
    last = compression.in_run(config, before)
    if not last.summable:
        before = [replace(step, decoded=True) if isinstance(step, NormLimit) else step for step in before]
    return UpdateSteps((*before, *([] if last.idle else [last])))


def _params(step: UpdateStep, plan: Mapping[str, Params], size: int) -> Params:
    return {**plan.get(step.name, {}), LENGTH: size}
