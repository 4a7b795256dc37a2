"""A model's tensors as the one vector that update steps work on."""

import torch
from torch import Tensor

from fedapp.common.state_digest import State

__all__ = ["flatten", "unflatten"]


def flatten(state: State, template: State) -> Tensor:
    """All values of `state` as one vector (n,), in the order of `template`. Raises KeyError for a missing name."""
    parts = [state[key].detach().reshape(-1) for key in template]
    return torch.cat(parts) if parts else torch.zeros(0)


def unflatten(vector: Tensor, template: State) -> dict[str, Tensor]:
    """The reverse, as views. Raises ValueError for a vector of another length."""
    size = sum(value.numel() for value in template.values())
    if vector.shape != (size,):
        raise ValueError(f"a vector of shape {tuple(vector.shape)} for a model of {size} values")
    found, start = {}, 0
    for key, value in template.items():
        found[key] = vector[start : start + value.numel()].reshape(value.shape)
        start += value.numel()
    return found
