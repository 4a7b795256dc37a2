"""Seeds as a function of what they are for, so that nothing depends on the order in which things happen."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["derive_seed", "generator", "seeded"]


def derive_seed(*parts: int | str) -> int:
    """A seed in 0..2^63-1 from e.g. (run seed, "shuffle", round, client), independent for different parts."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A CPU generator of its own, seeded by `derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(*parts))


@contextmanager
def seeded(*parts: int | str, devices: tuple[int, ...] = ()) -> Iterator[None]:
    """torch's global generators seeded inside the block, and as they were after it.

    For what cannot take a generator of its own: parameter initialisation and dropout. `devices`: CUDA indices.
    """
    seed = derive_seed(*parts)
    if devices or torch.backends.mps.is_available():
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            yield
        return
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)  # of the CPU alone, without a note for each device that is not in use
    try:
        yield
    finally:
        torch.set_rng_state(before)
