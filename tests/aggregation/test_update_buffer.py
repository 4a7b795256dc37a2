"""Updates of several rounds in one sum: each is decoded by its own round's plan, and a stale one counts less."""

from collections.abc import Collection
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from fedapp.aggregation.plain.update_buffer import UpdateBuffer
from fedapp.aggregation.rules import Median
from fedapp.aggregation.weighted_mean import WeightedMean
from fedapp.updates.norm_limit import NormLimit
from fedapp.updates.step import StepState, UpdateRejected, UpdateStep
from fedapp.updates.steps import UpdateSteps
from fedapp.wire.instruction import Params
from fedapp.wire.model import GlobalModel
from fedapp.wire.reply import ClientReport, Reply

MODEL = GlobalModel({"w": torch.zeros(2), "steps": torch.tensor(3)})


class Turned(UpdateStep):
    """Sums of updates travel turned by a sign that each round draws anew."""

    def plan(self, server_round: int) -> Params:
        return {"sign": -1 if server_round % 2 else 1}

    def on_client(self, vector: Tensor, weight: float, params: Params, state: StepState) -> Tensor:
        return vector * float(params["sign"])

    def on_total(
        self, vector: Tensor, weight: float, survivors: Collection[int], params: Params, rounding: float
    ) -> Tensor:
        return vector * float(params["sign"])


def update(*values: float) -> dict[str, Tensor]:
    return {"w": torch.tensor(values, dtype=torch.float32)}


def reply(client: int, *values: float) -> Reply:
    return Reply((ClientReport(client),), {client: update(*values)})


def test_a_stale_update_counts_less_and_makes_the_step_smaller() -> None:
    """Sum of weight x discount x update, over the sum of weights alone (Nguyen et al. 2022)."""
    buffer = UpdateBuffer(WeightedMean, UpdateSteps())
    mean = buffer.mean({3: update(2, 0), 8: update(4, 8)}, {3: 0.5, 8: 0.5}, {3: 1.0, 8: 0.5}, MODEL)
    assert mean.weight == 1.0
    assert mean.total["w"].tolist() == [0.5 * 2 + 0.25 * 4, 0.25 * 8]
    assert mean.unused == {}


def test_robust_rules_count_every_update_alike() -> None:
    buffer = UpdateBuffer(Median, UpdateSteps())
    assert buffer.counts_alike
    updates = {client: update(float(client), 1) for client in (1, 2, 9)}
    mean = buffer.mean(updates, dict.fromkeys(updates, 1 / 3), dict.fromkeys(updates, 1.0), MODEL)
    assert (mean.total["w"].tolist(), mean.weight) == ([2.0, 1.0], 1.0)


@pytest.mark.parametrize("server_round", [1, 2])
def test_each_update_is_turned_back_by_its_own_plan(server_round: int) -> None:
    steps = UpdateSteps((Turned(),))
    sent = steps.on_client(update(1, -2), MODEL.template, 1.0, steps.plan(server_round), {})
    buffer = UpdateBuffer(WeightedMean, steps)
    found = buffer.decoded(Reply((ClientReport(4),), {4: sent}), 4, MODEL, steps.plan(server_round))
    assert found["w"].tolist() == [1, -2]
    assert found["w"].dtype == torch.float32


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (reply(5, 1, 2), "no update of client 4 alone"),
        (Reply((ClientReport(4),), {4: update(1, 2), 5: update(1, 2)}), "no update of client 4 alone"),
        (Reply((ClientReport(4),), {}, {"w": torch.zeros(2, dtype=torch.int64)}), "no update of client 4 alone"),
        (reply(4, 1, 2, 3), "wrong shape"),
        (reply(4, 1, float("nan")), "non-finite"),
        (reply(4, 1, 2.0**21), "out of range"),
    ],
)
def test_what_is_no_update_is_rejected(given: Reply, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        UpdateBuffer(WeightedMean, UpdateSteps()).decoded(given, 4, MODEL, {})


def test_the_norm_limit_holds_for_each() -> None:
    buffer = UpdateBuffer(WeightedMean, UpdateSteps((NormLimit(2.0),)))
    decoded: Any = partial(buffer.decoded, client=4, model=MODEL, plan={})
    assert decoded(reply(4, 2, 0))["w"].tolist() == [2, 0]
    with pytest.raises(UpdateRejected, match=r"update norm 2.828 above 2"):
        decoded(reply(4, 2, 2))
