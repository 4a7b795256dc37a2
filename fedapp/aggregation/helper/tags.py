"""Tags: what a client signs with its sealed seed, by which a helper knows what it may remove that client's mask for.

A tag binds run, round, size of the cohort, model, config, work, the helper's key of the run, the client, its weight and
the smallest sum that it accepts. The seed is sealed under a key that is derived from all of it, so that no part of a
tag can be put beside another seed.
"""

import math
import os
from dataclasses import dataclass

from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.common.device_keys import Identity, Peers, is_signed
from fedapp.common.sealed_boxes import (
    KEY_BYTES,
    OVERHEAD,
    Part,
    decrypt,
    derived,
    encrypt,
    new_private,
    public_of,
    shared,
)

__all__ = ["SEALED_BYTES", "SEED_BYTES", "Bound", "Tag", "fault_of", "mask_key", "new_seed", "sealed_tag", "unsealed"]

PURPOSE = "helper tag"
SEED_BYTES, MASK_BYTES = 32, 16
SEALED_BYTES = KEY_BYTES + SEED_BYTES + OVERHEAD  # the sender's key that serves once, and the seed
SLACK = 1e-9  # of weights


@dataclass(frozen=True)
class Bound:
    """What all tags of a sum have in common. `cohort`: how many clients were asked. `model`, `config`: SHA-256 of what
    is trained of the model that they began with, and of what of the config decides the computation; `work`: of the
    instruction (`work_digest`). `key`: the helper's public key for seeds, of this run. `place`: of this helper among
    those of a client, the first of which is 0 and makes the next model, where that is the clients'."""

    run: str
    server_round: int
    cohort: int
    model: str
    config: str
    work: str
    key: bytes
    place: int = 0

    def told(self, client: int, weight: float, min_cohort: int) -> tuple[Part, ...]:
        common = (self.run, self.server_round, self.cohort, self.model, self.config, self.work, self.key, self.place)
        return *common, client, weight.hex(), min_cohort


@dataclass(frozen=True)
class Tag:
    """`weight`: 1 is the cohort's mean. `min_cohort`: the smallest sum that this client accepts. `sealed`: its seed,
    for one helper. `signature`: by its device, where it has a key."""

    client: int
    weight: float
    min_cohort: int
    sealed: bytes
    signature: bytes = b""


def new_seed() -> bytes:
    """From the operating system's entropy."""
    return os.urandom(SEED_BYTES)


def mask_key(seed: bytes, run: str, server_round: int, model: str, client: int) -> bytes:
    """The key of the stream that masks this client's numbers."""
    return derived(seed, "fedapp helper mask 1", run, server_round, model, client, length=MASK_BYTES)


def sealed_tag(
    seed: bytes, bound: Bound, client: int, weight: float, min_cohort: int, identity: Identity | None
) -> Tag:
    """Raises ProtocolError where the helper's key is none."""
    told = bound.told(client, weight, min_cohort)
    once = new_private()
    try:
        secret = shared(once, bound.key)
    except ValueError:
        raise ProtocolError("forged", "the helper's key is none, or of small order") from None
    public = public_of(once)
    sealed = public + encrypt(_sealing_key(secret, public, told), seed)
    return Tag(client, weight, min_cohort, sealed, identity.sign(PURPOSE, *told, sealed) if identity else b"")


def fault_of(tag: Tag, bound: Bound, *, peers: Peers | None = None, signed: bool = False) -> str | None:
    """Why a tag cannot be of its client; None where nothing is wrong with it. `signed`: a device's must be; `peers`:
    and by the one that is pinned for its client."""
    if not (math.isfinite(tag.weight) and 0 <= tag.weight <= bound.cohort * (1 + SLACK)):
        return f"a weight of {tag.weight:g} in a cohort of {bound.cohort}"
    if tag.min_cohort < 2 or len(tag.sealed) != SEALED_BYTES:
        return "a tag that is malformed"
    told = (*bound.told(tag.client, tag.weight, tag.min_cohort), tag.sealed)
    if peers is not None:
        return peers.fault(tag.client, tag.signature, PURPOSE, *told)
    if not (signed or tag.signature):
        return None
    return None if is_signed(tag.signature, PURPOSE, *told) else "not what its device signed"


def unsealed(tag: Tag, bound: Bound, private: bytes) -> bytes | None:
    """The seed; None for one that was sealed for another helper, run or tag."""
    public = tag.sealed[:KEY_BYTES]
    try:
        secret = shared(private, public)
    except ValueError:
        return None
    told = bound.told(tag.client, tag.weight, tag.min_cohort)
    return decrypt(_sealing_key(secret, public, told), tag.sealed[KEY_BYTES:])


def _sealing_key(secret: bytes, once: bytes, told: tuple[Part, ...]) -> bytes:
    return derived(secret, "fedapp helper seed 1", once, *told)
