"""Differences of models: unbiased, decoded alike by all, and refused where they cannot be."""

import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedapp.common.state_digest import state_sha256
from fedapp.models.shared_state import buffer_names
from fedapp.updates.difference_codec import DifferenceCodec, NoDifferenceError

FALSE_ALARM = 1e-6  # of the statistical test


def model(
    seed: int, *, size: int = 700, scale: float = 1.0, dtype: torch.dtype = torch.float32
) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "w": (scale * torch.randn(size, generator=generator)).to(dtype).reshape(-1, 7),
        "batches": torch.tensor(3),
        "b": (scale * torch.randn(5, generator=generator)).to(dtype),
        "none": torch.zeros(0, dtype=dtype),
    }


def moved(before: dict[str, torch.Tensor], seed: int, scale: float) -> dict[str, torch.Tensor]:
    by = model(seed, scale=scale)
    return {k: v + by[k].to(v.dtype) if v.is_floating_point() else v for k, v in before.items()}


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    bits=st.sampled_from([8, 4]),
    scale=st.sampled_from([1e-35, 1e-6, 1.0, 1e4]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
)
def test_no_value_is_further_off_than_a_step_of_its_block(
    seed: int, bits: int, scale: float, dtype: torch.dtype
) -> None:
    before = model(seed % 7, dtype=dtype)
    after = moved(before, 1 + seed % 11, scale if dtype == torch.float32 else min(scale, 1.0))
    codec = DifferenceCodec(bits)
    found = codec.apply(before, codec.encode(before, after, seed))
    assert list(found) == list(before)
    assert all(found[name].dtype == before[name].dtype for name in before)
    assert torch.equal(found["batches"], before["batches"])
    for name in ("w", "b"):
        largest = float((after[name] - before[name]).abs().max())
        off = (found[name].double() - after[name].double()).abs()
        rounding = torch.finfo(dtype).eps * (before[name].double().abs() + largest)
        assert bool((off <= largest / (2 ** (bits - 1) - 1) * 1.001 + 2 * rounding).all())


@pytest.mark.parametrize("bits", [8, 4])
def test_it_is_unbiased(bits: int) -> None:
    """The mean of 2,000 decodings of each value, within 6.2 deviations of the mean: together with 705 values the false
    alarm rate is below FALSE_ALARM."""
    before, codec, repetitions = model(0, scale=0.0), DifferenceCodec(bits), 2000
    after = moved(before, 5, 1.0)
    sums = torch.zeros(700, dtype=torch.float64)
    for seed in range(repetitions):
        sums += codec.apply(before, codec.encode(before, after, seed))["w"].double().reshape(-1)
    step = float(after["w"].abs().max()) / (2 ** (bits - 1) - 1)
    deviation = step / 2 / math.sqrt(repetitions)  # the largest that rounding to one of two neighbours has
    assert math.erfc(6.2 / math.sqrt(2)) * 705 < FALSE_ALARM
    assert float((sums / repetitions - after["w"].double().reshape(-1)).abs().max()) < 6.2 * deviation


def test_what_has_not_changed_stays_and_the_largest_of_a_block_is_exact() -> None:
    before = {"w": torch.zeros(600)}
    after = {"w": torch.zeros(600)}
    after["w"][17], after["w"][300] = 0.75, -2.0
    codec = DifferenceCodec(4)
    assert torch.equal(codec.apply(before, codec.encode(before, after, 3))["w"], after["w"])
    same = codec.apply(before, codec.encode(before, before, 3))
    assert state_sha256(same) == state_sha256(before)


def test_it_takes_so_many_bytes() -> None:
    before = model(0)
    for bits, values in ((8, 705), (4, 4 * 89)):
        packed = DifferenceCodec(bits).encode(before, moved(before, 1, 1.0), 0)
        assert packed.shape == (4 * (3 + 1) + values,)


@pytest.mark.parametrize("bits", [8, 4])
def test_a_small_variance_beside_large_ones_stays_what_it_is(bits: int) -> None:
    """Rounded, it would be negative in most rounds, and the model give NaN from then on."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.BatchNorm1d(64), nn.Linear(64, 2))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    del before["0.num_batches_tracked"]  # which no sum changes
    spread = torch.exp(1.5 * torch.randn(64))
    spread[:2] = torch.tensor([200.0, 0.01])
    after = {name: value + 0.1 * torch.randn(value.shape) for name, value in before.items()}
    after |= {"0.running_var": 0.12 + 0.88 * spread, "0.running_mean": torch.randn(64)}
    codec, rounding = DifferenceCodec(bits, buffer_names(net)), DifferenceCodec(bits)
    lowest = [rounding.apply(before, rounding.encode(before, after, seed))["0.running_var"].min() for seed in range(10)]
    assert min(lowest) < 0
    for seed in range(10):
        found = codec.apply(before, codec.encode(before, after, seed))
        assert list(found) == list(before)
        for name in ("0.running_var", "0.running_mean"):
            assert torch.equal(found[name], after[name])
        assert not torch.equal(found["1.weight"], after["1.weight"])
        assert not torch.equal(found["1.weight"], before["1.weight"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("names", [("w",), ("b",), ("w", "none"), ("w", "b", "none", "batches", "unknown")])
def test_what_is_exact_has_the_same_bits_and_takes_one_byte_where_it_is_not_new(
    names: tuple[str, ...], dtype: torch.dtype
) -> None:
    before = model(0, dtype=dtype)
    after = moved(before, 1, 1.0)
    after["b"][0] = -0.0  # as this value has been, the sign apart
    before["b"][0] = 0.0
    codec, rounded = DifferenceCodec(8, frozenset(names)), [name for name in ("w", "b") if name not in names]
    marks = len({*names} & {"w", "b", "none"})
    size = marks + sum({"w": 4 * 3 + 700, "b": 4 + 5}[name] for name in rounded)
    packed = codec.encode(before, after, 3)
    assert packed.shape == (size + sum(after[name].nbytes for name in {*names} & {"w", "b"}),)
    found = codec.apply(before, packed)
    assert state_sha256({k: found[k] for k in names if k in found}) == state_sha256(
        {k: after[k] for k in names if k in found}
    )
    same = codec.encode(before, before, 3)
    assert same.shape == (size,)
    assert state_sha256(codec.apply(before, same)) == state_sha256(before)


@pytest.mark.parametrize("change", ["nan", "inf", "huge", "integer", "shape", "dtype", "names", "exact"])
def test_models_without_a_difference(change: str) -> None:
    before = model(0)
    after = moved(before, 1, 1.0)
    if change == "exact":
        after["b"][0] = math.nan
    elif change in ("nan", "inf", "huge"):
        after["w"][0, 0] = {"nan": math.nan, "inf": math.inf, "huge": 2.0**21}[change]
    elif change == "integer":
        after["batches"] = torch.tensor(4)
    elif change == "shape":
        after["w"] = after["w"].reshape(7, -1)
    elif change == "dtype":
        after["b"] = after["b"].double()
    else:
        after.pop("b")
    with pytest.raises(NoDifferenceError):
        DifferenceCodec(8, frozenset({"b"} if change == "exact" else ())).encode(before, after, 0)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("shorter", "takes 721 bytes"),
        ("longer", "takes 721 bytes"),
        ("floats", "takes 721 bytes"),
        ("nan", "a scale of nan"),
        ("inf", "a scale of inf"),
        ("huge", "a scale of 2.09715e"),
        ("negative", "a scale of -1"),
        ("level", "a level of 255, and the highest is 254"),
    ],
)
def test_hostile_differences_are_refused_by_name(change: str, why: str) -> None:
    before, codec = model(0), DifferenceCodec(8)
    packed = codec.encode(before, moved(before, 1, 1.0), 0).numpy().copy()
    scales = {"nan": math.nan, "inf": math.inf, "huge": 2.0**21, "negative": -1.0}
    if change in scales:
        packed[4:8] = np.frombuffer(struct.pack("<f", scales[change]), np.uint8)
    if change == "level":
        packed[-1] = 255
    found = torch.from_numpy(packed)
    found = {"shorter": found[:-1], "longer": torch.cat([found, found[:1]]), "floats": found.float()}.get(change, found)
    with pytest.raises(ValueError, match=f"bad difference: .*{why}"):
        codec.apply(before, found)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("shorter", "takes 733 bytes"),
        ("longer", "takes 733 bytes"),
        ("empty", "takes 713 bytes"),
        ("unmarked", "takes 713 bytes"),
        ("two dimensions", "takes 713 bytes"),
        ("mark", "a mark of 2 for a new tensor"),
        ("nan", "b is not finite"),
    ],
)
def test_hostile_exact_values_are_refused_by_name(change: str, why: str) -> None:
    before, codec = model(0), DifferenceCodec(8, frozenset({"b"}))
    packed = codec.encode(before, moved(before, 1, 1.0), 0).numpy().copy()
    assert packed[0] == 1
    packed[0] = {"unmarked": 0, "mark": 2}.get(change, 1)
    if change == "nan":
        packed[1:5] = np.frombuffer(struct.pack("<f", math.nan), np.uint8)
    found = torch.from_numpy(packed)
    others = {"shorter": found[:-1], "longer": torch.cat([found, found[:1]]), "empty": found[:0]}
    others["two dimensions"] = found[None]
    with pytest.raises(ValueError, match=f"bad difference: .*{why}"):
        codec.apply(before, others.get(change, found))
