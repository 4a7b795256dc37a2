"""A metric of all clients' examples from what each client reports of its own."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedapp.data.source import Schema
from fedapp.data.text.vocabulary import Words
from fedapp.learning.metrics import Metric, averaged, of_averages
from fedapp.learning.metrics.next_token import Perplexity
from fedapp.learning.metrics.regression import MeanAbsoluteError, RootMeanSquaredError
from fedapp.learning.tasks.next_token import NextToken
from fedapp.server.outcome import federated_metrics
from fedapp.wire.reply import ClientReport

ROOT, POWER = RootMeanSquaredError("rmse"), Perplexity("perplexity")
sizes = st.lists(st.integers(1, 9), min_size=1, max_size=5)


def over_clients(metric: Metric, values: list[float], counts: list[int]) -> float:
    reported = [averaged({"it": metric}, {"it": value})["it"] for value in values]
    mean = math.fsum(count * one for count, one in zip(counts, reported, strict=True)) / sum(counts)
    return of_averages({"it": metric}, {"it": mean, "another": 0.0})["it"]


@given(sizes, st.integers(0, 2**31))
def test_the_root_of_all_squares(counts: list[int], seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    outputs, targets = (torch.randn(sum(counts), 1, generator=random) for _ in range(2))
    pairs = zip(outputs.split(counts), targets.squeeze(1).split(counts), strict=True)
    assert over_clients(ROOT, [ROOT(*pair) for pair in pairs], counts) == pytest.approx(
        ROOT(outputs, targets.squeeze(1))
    )


@given(sizes, st.integers(0, 2**31))
def test_the_power_of_all_log_probabilities(counts: list[int], seed: int) -> None:
    """Where all windows have as many tokens."""
    log_chances = -torch.rand(sum(counts), 4, generator=torch.Generator().manual_seed(seed)) * 9
    scores, targets = torch.stack([log_chances, torch.zeros(sum(counts), 4)], 2), torch.zeros(sum(counts), 4)
    values = [POWER(*pair) for pair in zip(scores.split(counts), targets.split(counts), strict=True)]
    assert over_clients(POWER, values, counts) == pytest.approx(POWER(scores, targets))


def test_what_is_no_number_or_too_large_stays_that() -> None:
    assert math.isnan(POWER.to_average(math.nan))
    assert POWER.to_average(math.inf) == math.inf
    assert POWER.of_average(1e9) > 1e300
    assert POWER.to_average(1.0 - 1e-12) == 0.0  # of log-probabilities that rounding has put above 0
    assert ROOT.to_average(1e200) == math.inf
    assert math.isnan(ROOT.of_average(-1.0))
    assert (ROOT.average_power, MeanAbsoluteError("mae").average_power) == (2, 1)
    assert POWER.largest_average == ROOT.largest_average == math.inf


def test_the_federated_perplexity() -> None:
    """Clients of 3 and 1 windows: the mean of logarithms counts windows, and of single clients they are as before."""
    task = NextToken(Schema((4,), vocabulary=len(Words(size=9)), text=Words(size=9)))
    reports = [
        ClientReport(
            client, val_examples=count, val_loss=1.0, val_metrics=averaged(task.metrics, {"perplexity": value})
        )
        for client, (count, value) in enumerate([(3, 10.0), (1, 1000.0)])
    ]
    found = federated_metrics(reports, task, {0: 9, 1: 9})
    assert found["val_perplexity"] == pytest.approx(10 ** ((3 * 1 + 1 * 3) / 4))
    assert found["val_perplexity_mean"] == pytest.approx(505.0)
    assert found["val_perplexity_worst_decile"] == pytest.approx(1000.0)
    made_up = ClientReport(2, val_examples=1, val_loss=1.0, val_metrics={"perplexity": -1.0})
    assert federated_metrics([*reports, made_up], task, dict.fromkeys(range(3), 9)) == found
