"""One number that tells whether two models are the same, bit for bit."""

import hashlib
from collections.abc import Mapping

from torch import Tensor

__all__ = ["state_sha256"]


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over the sorted names, dtypes, shapes and bytes of a state dict."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()
