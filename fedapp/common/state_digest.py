"""Model states, and one number that tells whether two of them are the same, bit for bit."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["State", "state_sha256", "trained_sha256"]

State = Mapping[str, Tensor]  # tensors by name, as torch's `state_dict` has them


def state_sha256(state: State) -> str:
    """SHA-256 over the sorted names, dtypes, shapes and bytes of a state dict."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        value = value.view(torch.int16) if value.dtype is torch.bfloat16 else value  # which NumPy does not know
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def trained_sha256(state: State) -> str:
    """Of what is trained and aggregated alone: models that differ in counters and the like are the same to a sum."""
    return state_sha256({name: value for name, value in state.items() if value.is_floating_point()})
