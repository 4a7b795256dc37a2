"""Rules against sums done by hand, in any order of clients, and with hostile ones among them."""

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from fedapp.aggregation.rules import AggregationRule, Median, MultiKrum, TrimmedMean, WeightedMean
from fedapp.common.errors import ConfigError, FederationError
from fedapp.config import compose
from fedapp.server.build import check_strategy

pytestmark = pytest.mark.slow  # whole federations

TEMPLATE = {"w": torch.zeros(3, 2), "b": torch.zeros(())}
RULES: dict[str, Callable[[dict[str, Tensor]], AggregationRule]] = {
    "mean": WeightedMean,
    "median": Median,
    "trimmed mean": lambda template: TrimmedMean(template, beta=0.2),
    "Krum": lambda template: MultiKrum(template, num_malicious=2, num_selected=1),
    "Multi-Krum": lambda template: MultiKrum(template, num_malicious=2),
}


def updates(count: int, seed: int = 0) -> dict[int, dict[str, Tensor]]:
    random = torch.Generator().manual_seed(seed)
    return {c: {key: torch.randn(v.shape, generator=random) for key, v in TEMPLATE.items()} for c in range(count)}


def applied(
    rule: AggregationRule, given: dict[int, dict[str, Tensor]], order: list[int] | None = None
) -> dict[str, Tensor]:
    for client in order or list(given):
        rule.add(client, given[client], 1 / len(given))
    total, weight = rule.result()
    return {key: value / weight for key, value in total.items()}


def stacked(given: dict[int, dict[str, Tensor]], key: str) -> np.ndarray:
    return np.stack([given[client][key].double().numpy() for client in sorted(given)])


@pytest.mark.parametrize("count", [9, 10])
def test_median_of_every_coordinate(count: int) -> None:
    given = updates(count)
    mean = applied(Median(TEMPLATE), given)
    for key in TEMPLATE:
        ordered = np.sort(stacked(given, key), axis=0)
        middle = ordered[[(count - 1) // 2, count // 2]].mean(0)
        assert np.array_equal(mean[key].numpy(), middle)
        assert mean[key].shape == TEMPLATE[key].shape


def test_trimmed_mean_drops_the_ends_of_every_coordinate() -> None:
    given = updates(10)
    mean = applied(TrimmedMean(TEMPLATE, beta=0.2), given)
    for key in TEMPLATE:
        kept = np.sort(stacked(given, key), axis=0)[2:-2]
        assert np.allclose(mean[key].numpy(), kept.mean(0), rtol=0, atol=1e-15)


def krum_scores(given: dict[int, dict[str, Tensor]], num_malicious: int) -> list[float]:
    """Blanchard et al. 2017: the sum of squared distances to the n - f - 2 nearest others."""
    flat = np.concatenate([stacked(given, key).reshape(len(given), -1) for key in TEMPLATE], axis=1)
    distances = ((flat[:, None] - flat[None]) ** 2).sum(2)
    return [
        float(np.sort(np.delete(row, i))[: len(given) - num_malicious - 2].sum()) for i, row in enumerate(distances)
    ]


@pytest.mark.parametrize(("selected", "expected"), [(1, 1), (3, 3), (None, 6)])
def test_krum_takes_those_with_the_nearest_neighbours(selected: int | None, expected: int) -> None:
    given = updates(10)
    rule = MultiKrum(TEMPLATE, num_malicious=2, num_selected=selected)
    mean = applied(rule, given)
    best = sorted(np.argsort(krum_scores(given, 2))[:expected])
    assert set(rule.unused) == set(range(10)) - set(best)
    for key in TEMPLATE:
        assert np.allclose(mean[key].numpy(), stacked(given, key)[best].mean(0), rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", RULES)
def test_the_order_of_replies_changes_no_bit(name: str) -> None:
    # Many, and of magnitudes so unlike that sums of floats in another order are other sums.
    given = {c: {key: value * 10.0 ** (c % 5 - 2) / 3 for key, value in u.items()} for c, u in updates(101).items()}
    order = random.Random(0).sample(sorted(given), len(given))
    first, second = applied(RULES[name](TEMPLATE), given), applied(RULES[name](TEMPLATE), given, order)
    assert all(torch.equal(first[key], second[key]) for key in TEMPLATE)


@pytest.mark.parametrize("name", RULES)
def test_hostile_updates_move_the_mean_and_nothing_else(name: str) -> None:
    honest = {c: {key: 1 + 0.1 * value for key, value in update.items()} for c, update in updates(9).items()}
    hostile = {c: {key: torch.full(v.shape, -1000.0) for key, v in TEMPLATE.items()} for c in (9, 10)}
    mean = applied(RULES[name](TEMPLATE), honest | hostile)
    off = max(float((mean[key] - 1).abs().max()) for key in TEMPLATE)
    assert off > 100 if name == "mean" else off < 0.3


def test_krum_needs_as_many_as_its_selection_withstands() -> None:
    assert MultiKrum(TEMPLATE, num_malicious=1).fewest == 5
    assert MultiKrum(TEMPLATE, num_malicious=1, num_selected=5).fewest == 8


@pytest.mark.parametrize("name", [name for name in RULES if name != "mean"])
def test_a_sum_is_refused_where_single_updates_are_needed(name: str) -> None:
    rule = RULES[name](TEMPLATE)
    assert rule.each
    assert "single updates" in str(rule.screen_sum({}, [0.5, 0.5]))
    with pytest.raises(ValueError, match="takes no sums"):
        rule.add_sum({}, [0.5, 0.5])


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ("strategy=median strategy.weighting=num_examples", ["strategy.weighting=num_examples", "uniform"]),
        ("strategy=krum strategy.weight_cap=3", ["strategy.weight_cap=3"]),
        ("strategy=trimmed_mean strategy.aggregation.beta=0.5", ["strategy.aggregation.beta=0.5", "between 0 and 0.5"]),
        ("strategy=multi_krum strategy.aggregation.num_malicious=-1", ["num_malicious=-1", "at least 0"]),
        ("strategy=krum strategy.aggregation.num_selected=0", ["num_selected=0"]),
        ("strategy=krum strategy.aggregation.malicious=1", ["strategy.aggregation.malicious"]),
        ("lr_schedule@client_lr=step client_lr.step_size=0", ["client_lr.step_size=0", "at least 1"]),
        ("lr_schedule@server_lr=exponential server_lr.gamma=-1", ["server_lr", "round 2 by -1"]),
        ("lr_schedule@server_lr=exponential server_lr.gama=1", ["server_lr.gama"]),
    ],
)
def test_what_cannot_work_is_refused(overrides: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        check_strategy(compose(overrides.split()))
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_too_few_clients_for_a_rule_are_named(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from in_process import run_in_process

    overrides = "strategy=multi_krum strategy.aggregation.num_malicious=3 federation.num_clients=8"
    with pytest.raises(FederationError, match=r"MultiKrum needs 9 clients a round, 8 can take part"):
        run_in_process(tmp_path / "run", f"{overrides} model=logistic_regression")
    assert not (tmp_path / "run").exists()
