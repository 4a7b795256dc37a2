"""A model's tensors as the one vector that update steps work on."""

from itertools import accumulate

import torch
from torch import Tensor

from fedapp.common.state_digest import State

__all__ = ["difference", "flatten", "joined", "unflatten"]


def flatten(state: State, template: State) -> Tensor:
    """All values of `state` as one vector (n,), in the order of `template`. Raises KeyError for a missing name."""
    parts = [state[key].detach().reshape(-1) for key in template]
    return torch.cat(parts) if parts else torch.zeros(0)


def joined(state: State, template: State) -> Tensor:
    """As `flatten`, but without a copy where the values lie one behind another already, as those of `difference` and
    `unflatten` do: then the vector is their memory."""
    parts = [state[key].detach() for key in template]
    if not parts or not all(part.is_contiguous() and part.dtype == parts[0].dtype for part in parts):
        return flatten(state, template)
    sizes = [part.numel() for part in parts]
    start, memory = parts[0].storage_offset(), parts[0].untyped_storage().data_ptr()
    for part, before in zip(parts, accumulate(sizes, initial=0), strict=False):
        if part.untyped_storage().data_ptr() != memory or part.storage_offset() != start + before:
            return flatten(state, template)
    return parts[0].as_strided((sum(sizes),), (1,))


def difference(state: State, other: State) -> dict[str, Tensor]:
    """`state - other` by the names of `other`, on the CPU, as fresh memory; in one piece where all have one dtype."""
    values = [state[key].detach().cpu() for key in other]
    if len({value.dtype for value in (*values, *other.values())}) != 1:
        return dict(zip(other, torch._foreach_sub(values, list(other.values())), strict=True))
    found = unflatten(torch.empty(sum(value.numel() for value in values), dtype=values[0].dtype), other)
    for value, (key, subtracted) in zip(values, other.items(), strict=True):
        torch.sub(value, subtracted, out=found[key])
    return found


def unflatten(vector: Tensor, template: State) -> dict[str, Tensor]:
    """The reverse, as views. Raises ValueError for a vector of another length."""
    size = sum(value.numel() for value in template.values())
    if vector.shape != (size,):
        raise ValueError(f"a vector of shape {tuple(vector.shape)} for a model of {size} values")
    parts = torch.split(vector, [value.numel() for value in template.values()]) if template else ()
    return {key: part.view(value.shape) for part, (key, value) in zip(parts, template.items(), strict=True)}
