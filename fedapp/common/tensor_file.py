"""Tensors as the content of a safetensors file."""

from collections.abc import Mapping

from safetensors.torch import save
from torch import Tensor

__all__ = ["tensor_file"]


def tensor_file(state: Mapping[str, Tensor]) -> bytes:
    """The content, on the CPU. Tensors that share memory, as tied weights do, are written one by one: the format has no
    way to say that they are the same, and refuses them."""
    taken: set[int] = set()
    found = {}
    for name, value in state.items():
        tensor = value.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        found[name] = tensor.clone() if place in taken else tensor
        taken.add(place)
    return save(found)
