"""The weighted sum is exact: order and grouping change no bit, and it is the mean that mathematics says."""

import math
import random
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedapp.aggregation.exact_sum import BLOCK, FRACTION_BITS, MAX_MAGNITUDE, WeightedSum, examine, normalised

TEMPLATE = {"a": torch.zeros(3, 2), "b": torch.zeros(())}


def updates(seed: int, count: int, scale: float = 1.0) -> dict[int, dict[str, torch.Tensor]]:
    source = torch.Generator().manual_seed(seed)
    return {
        client: {key: torch.randn(value.shape, generator=source) * scale for key, value in TEMPLATE.items()}
        for client in range(count)
    }


def add_all(items: list[tuple[dict[str, torch.Tensor], float]]) -> WeightedSum:
    total = WeightedSum(TEMPLATE)
    for update, weight in items:
        total.add(update, weight)
    return total


def mean_of(total: WeightedSum) -> dict[str, torch.Tensor]:
    return {key: value / total.weight for key, value in total.sum().items()}


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    count=st.integers(1, 12),
    scale=st.sampled_from([1e-12, 1e-3, 1.0, 1e5]),
    order=st.randoms(use_true_random=False),
    raw=st.lists(st.floats(1e-6, 1e6), min_size=12, max_size=12),
    cuts=st.integers(1, 5),
)
def test_any_order_and_any_grouping_give_the_same_bits(
    seed: int, count: int, scale: float, order: random.Random, raw: list[float], cuts: int
) -> None:
    weights = normalised(dict(enumerate(raw[:count])))
    items = [(update, weights[client]) for client, update in updates(seed, count, scale).items()]
    straight = add_all(items)
    order.shuffle(items)
    grouped = WeightedSum(TEMPLATE)
    for part in range(cuts):
        group = items[part::cuts]
        if len(group) == 1:
            grouped.add(*group[0])
        elif group:
            partial = add_all(group)
            assert grouped.screen_partial(partial.totals, partial.weights) is None
            grouped.add_partial(partial.totals, partial.weights)
    assert grouped.weight == straight.weight
    for key in TEMPLATE:
        assert torch.equal(grouped.totals[key], straight.totals[key])
        assert torch.equal(grouped.sum()[key], straight.sum()[key])
        assert torch.equal(mean_of(grouped)[key], mean_of(straight)[key])


def test_it_is_the_weighted_mean() -> None:
    parts = updates(1, 5)
    weights = normalised({0: 10.0, 1: 1.0, 2: 300.0, 3: 7.0, 4: 0.5})
    mean = mean_of(add_all([(parts[c], weights[c]) for c in parts]))
    for key in TEMPLATE:
        expected = np.average([parts[c][key].double().numpy() for c in parts], axis=0, weights=list(weights.values()))
        assert np.abs(mean[key].numpy() - expected).max() < 1e-9


def test_the_mean_is_over_those_who_replied() -> None:
    parts = updates(2, 4)
    weights = normalised({0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0})
    mean = mean_of(add_all([(parts[c], weights[c]) for c in (1, 3)]))
    expected = (2 * parts[1]["a"].double() + 4 * parts[3]["a"].double()) / 6
    assert (mean["a"] - expected).abs().max() < 1e-9


def test_blocks_cover_large_tensors_and_empty_ones() -> None:
    template = {"large": torch.zeros(2 * BLOCK + 17), "empty": torch.zeros(0)}
    total = WeightedSum(template)
    total.add({"large": torch.arange(2 * BLOCK + 17).float(), "empty": torch.zeros(0)}, 0.5)
    assert total.weight == 0.5
    assert torch.equal(total.sum()["large"], torch.arange(2 * BLOCK + 17).double() / 2)
    assert total.sum()["empty"].shape == (0,)


def test_nobody_has_no_weight() -> None:
    total = WeightedSum(TEMPLATE)
    assert total.weight == 0
    assert all(torch.equal(value, torch.zeros_like(TEMPLATE[key]).double()) for key, value in total.sum().items())


def test_largest_values_do_not_wrap() -> None:
    largest = math.nextafter(MAX_MAGNITUDE, 0)
    update = {"a": torch.full((3, 2), 1.0).mul(largest).float().clamp(max=MAX_MAGNITUDE - 1), "b": torch.tensor(-1.0)}
    weights = normalised(dict.fromkeys(range(1000), 1.0))
    total = add_all([(update, weights[c]) for c in range(1000)])
    assert (mean_of(total)["a"] - (MAX_MAGNITUDE - 1)).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"a": torch.full((3, 2), float("nan"))}, "non-finite value in a"),
        ({"a": torch.full((3, 2), float("inf"))}, "non-finite value in a"),
        ({"a": torch.zeros(2, 3)}, r"wrong shape: a is \(2, 3\)"),
        ({"a": torch.zeros(3, 2, dtype=torch.float64)}, "wrong dtype: a is torch.float64"),
        ({"a": torch.full((3, 2), MAX_MAGNITUDE)}, "value out of range: a"),
        ({"c": torch.zeros(1)}, r"unexpected \['c'\]"),
    ],
)
def test_screening_names_the_reason(change: dict[str, torch.Tensor], reason: str) -> None:
    assert examine(TEMPLATE, TEMPLATE).fault is None
    found = examine({**TEMPLATE, **change}, TEMPLATE).fault
    assert found is not None
    assert re.search(reason, found)


def test_missing_key_is_named() -> None:
    assert examine({"a": TEMPLATE["a"]}, TEMPLATE).fault == "wrong keys: missing ['b'], unexpected []"


def test_partial_sums_are_held_to_their_clients_weight() -> None:
    total = WeightedSum(TEMPLATE)
    sound = add_all([(updates(3, 1)[0], 0.25)])
    assert total.screen_partial(sound.totals, [0.25]) is None
    huge = {"a": torch.full((3, 2), 2**61), "b": torch.zeros((), dtype=torch.int64)}
    assert "value out of range" in str(total.screen_partial(huge, [0.25]))
    least = {"a": torch.full((3, 2), -(2**63)), "b": torch.zeros((), dtype=torch.int64)}
    assert "value out of range" in str(total.screen_partial(least, [1.0]))
    assert "wrong dtype" in str(total.screen_partial(TEMPLATE, [0.25]))
    assert "wrong keys" in str(total.screen_partial({"a": sound.totals["a"]}, [0.25]))


def test_small_and_large_values_are_rounded_alike() -> None:
    """Both ways to fixed point, against Python's exact integers, half to even."""
    quantum = 2.0**-FRACTION_BITS
    values = [quantum * k / 2 for k in (-5, -3, -1, 0, 1, 3, 5)] + [1 / 3, -1e-9, 200.1, -255.9, 256.0, 700.3, 1e6]
    for value in values:
        for weight in (1.0, 0.1):
            total = WeightedSum({"w": torch.zeros(2)})
            update = torch.tensor([value, 0.0], dtype=torch.float32)
            total.add({"w": update}, weight)
            expected = round(float(update[0]) * (weight * 2.0**FRACTION_BITS))
            assert total.totals["w"].tolist() == [expected, 0]


@pytest.mark.parametrize("read_after", [None, 1, 4, 6])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("count", [1, 3, 4, 5, 9])
def test_the_sum_is_the_one_of_whole_numbers(count: int, known: bool, read_after: int | None) -> None:
    """However many are added together, whether the totals are looked at on the way or not: Python's own integers."""
    template = {"w": torch.zeros(BLOCK + 3)}
    source = torch.Generator().manual_seed(count)
    # Some beyond what the quick way to fixed point can hold, so that both ways meet in one sum.
    given = [torch.randn(BLOCK + 3, generator=source) * 10.0 ** (4 * (k % 2) - 1) for k in range(count)]
    weights = normalised({k: 1.0 + k for k in range(count)})
    total = WeightedSum(template)
    for k, values in enumerate(given):
        update = {"w": values}
        total.add(update, weights[k], examine(update, template).largest if known else None)
        if k + 1 == read_after:
            assert total.totals["w"].dtype == torch.int64
    for place in (0, 1, BLOCK - 1, BLOCK, BLOCK + 2):
        expected = sum(round(float(v[place]) * (weights[k] * 2.0**FRACTION_BITS)) for k, v in enumerate(given))
        assert int(total.totals["w"][place]) == expected


@pytest.mark.parametrize("place", [0, BLOCK - 1, BLOCK, 2 * BLOCK + 16])
@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (math.nan, "non-finite value in w"),
        (-math.inf, "non-finite value in w"),
        (-MAX_MAGNITUDE, "value out of range: w has magnitude 1.04858e+06"),
        (3.0, None),
    ],
)
def test_every_value_is_looked_at(place: int, value: float, fault: str | None) -> None:
    update = {"w": torch.full((2 * BLOCK + 17,), -2.0)}
    update["w"][place] = value
    found = examine(update, {"w": torch.zeros(2 * BLOCK + 17)})
    assert found.fault == fault
    assert fault is not None or found.largest == {"w": 3.0}


def test_what_is_known_of_an_update_is_its_largest_magnitude() -> None:
    update = {"a": torch.tensor([[1.0, -7.0]] * 3), "b": torch.tensor(-0.5)}
    assert examine(update, TEMPLATE).largest == {"a": 7.0, "b": 0.5}
    assert examine({"a": torch.zeros(0)}, {"a": torch.zeros(0)}).largest == {"a": 0.0}
