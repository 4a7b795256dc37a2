"""Models of text are compared on the same draws of clients."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from fedapp.compare.bootstrap import Drawn, interval
from fedapp.compare.judged_text import HeldOut, JudgedText
from fedapp.data.source import Examples


class Mean:
    """In place of a metric: the mean of the scores."""

    def __call__(self, scores: Tensor, targets: Tensor) -> float:
        return float(scores.mean())

    def on_draws(self, scores: Tensor, targets: Tensor, counts: Tensor) -> Tensor:
        return (counts.double() @ scores.double()) / counts.sum(1)


TASK: Any = SimpleNamespace(metrics={"found": Mean()})


def held(name: str, clients: int) -> HeldOut:
    examples = Examples(torch.zeros(2 * clients, 1), torch.zeros(2 * clients))
    return HeldOut(name, examples, tuple(torch.split(torch.arange(2 * clients), 2)))


def test_models_are_compared_on_the_same_draws_and_on_the_same_text_only() -> None:
    """Clients differ a lot, and both models by the same: only where draws are shared is that seen exactly."""
    judged, lines, clients = JudgedText(TASK, seed=0), held("lines", 6), held("clients", 4)
    scores = torch.arange(12).double()
    judged.add("first", lines, scores)
    judged.add("first", clients, scores[:8])
    judged.add("second", lines, scores + 3)
    (found,) = judged.differences(["found"])
    assert (found.model, found.than, found.on) == ("second", "first", "lines")
    assert (found.difference.low, found.difference.high) == pytest.approx((3.0, 3.0))
    assert found.ratio.value == pytest.approx(8.5 / 5.5)
    assert found.ratio.low < found.ratio.value < found.ratio.high
    judged.add("third", lines, (scores + 3) * 2)
    ratios = {row.than: row.ratio for row in judged.differences(["found"])}
    assert (ratios["second"].low, ratios["second"].high) == pytest.approx((2.0, 2.0))
    assert [(row.model, row.on) for row in judged.rows()] == [
        *(("first", "lines"), ("first", "clients"), ("second", "lines"), ("third", "lines"))
    ]
    low, high = judged.rows()[0].metrics["found"].low, judged.rows()[0].metrics["found"].high
    assert low < 5.5 < high


@pytest.mark.parametrize(("value", "draws", "ratio"), [(0.0, [0.0, 1.0, 1.0], math.nan), (0.5, [0.0, 1.0, 1.0], 2.0)])
def test_of_a_multiple_of_zero_there_is_no_interval(value: float, draws: list[float], ratio: float) -> None:
    """What remained without the draws that are 0 would be too small, and would not hold the value itself."""
    found = interval(Drawn(1.0, torch.ones(3).numpy()).over(Drawn(value, torch.tensor(draws).numpy())))
    assert found.value == pytest.approx(ratio, nan_ok=True)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
