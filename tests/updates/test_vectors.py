"""A model's tensors as one vector, with and without a copy, and the difference of two models."""

import pytest
import torch
from torch import Tensor

from fedapp.updates.vectors import difference, flatten, joined, unflatten

TEMPLATE = {"a": torch.zeros(2, 3), "b": torch.zeros(()), "c": torch.zeros(0, 4), "d": torch.zeros(5)}


def filled(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(1)
    return {key: torch.randn(value.shape, generator=random).to(dtype) for key, value in TEMPLATE.items()}


def scattered() -> dict[str, dict[str, Tensor]]:
    """States whose memory is not their vector, however near it comes."""
    behind, other = unflatten(torch.arange(12.0), TEMPLATE), unflatten(torch.arange(12.0), TEMPLATE)
    return {
        "each by itself": filled(),
        "one from elsewhere": {**behind, "d": other["d"]},
        "another order": {**behind, "d": behind["a"].view(-1)[:5]},
        "across": {**behind, "a": behind["a"].view(3, 2).T},
        "another dtype": {**behind, "d": behind["d"].view(torch.int32)},
    }


@pytest.mark.parametrize("kind", scattered())
def test_what_does_not_lie_together_is_copied(kind: str) -> None:
    state = scattered()[kind]
    found = joined(state, TEMPLATE)
    assert torch.equal(found, flatten(state, TEMPLATE))
    assert found.data_ptr() not in {value.data_ptr() for value in state.values()}


def test_what_lies_together_is_not_copied() -> None:
    memory = torch.randn(14)
    state = unflatten(memory[1:13], TEMPLATE)
    found = joined(state, TEMPLATE)
    assert torch.equal(found, flatten(state, TEMPLATE))
    assert found.shape == (12,)
    found[6:].zero_()
    assert state["b"] == 0
    assert not state["d"].any()
    assert memory[13] != 0
    with pytest.raises(KeyError):
        joined({"a": state["a"]}, TEMPLATE)
    assert joined({}, {}).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_difference_is_fresh_and_in_one_piece(dtype: torch.dtype) -> None:
    state, other = filled(dtype), {key: value + 1 for key, value in filled(dtype).items()}
    found = difference({"more": torch.ones(3), **state}, other)
    assert found.keys() == TEMPLATE.keys()
    for key, value in found.items():
        assert value.dtype == dtype
        assert torch.equal(value, state[key] - other[key])
    joined(found, other).zero_()
    assert not any(value.any() for value in found.values())
    assert state["a"].any()
    assert other["a"].any()


def test_a_difference_keeps_each_dtype() -> None:
    state = {"a": torch.ones(3), "b": torch.ones(2, dtype=torch.float64)}
    found = difference(state, {key: value / 4 for key, value in state.items()})
    assert {key: value.dtype for key, value in found.items()} == {"a": torch.float32, "b": torch.float64}
    assert all((value == 0.75).all() for value in found.values())


def test_unflatten_is_the_reverse_as_views() -> None:
    vector = torch.arange(12.0)
    found = unflatten(vector, TEMPLATE)
    assert {key: value.shape for key, value in found.items()} == {key: value.shape for key, value in TEMPLATE.items()}
    assert torch.equal(flatten(found, TEMPLATE), vector)
    assert found["d"].data_ptr() == vector[7:].data_ptr()
    with pytest.raises(ValueError, match="13"):
        unflatten(torch.zeros(13), TEMPLATE)
    assert unflatten(torch.zeros(0), {}) == {}
