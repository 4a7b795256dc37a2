"""A client's first steps: each from what the one before left, and each done at most once.

    advertise -> share -> receive, apply_masks -> agree (`unmasking`) -> unmask

The caller keeps `Secrets` between messages, and deletes them when the client's round is over. A step that is asked for
twice, out of order, or for another run, round or cohort raises ProtocolError, and nothing is sent.
"""

import hashlib
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedapp.aggregation.secaggplus.cohort_view import CohortView
from fedapp.aggregation.secaggplus.kept import Secrets, enough, expect, subset
from fedapp.aggregation.secaggplus.keys import KeyPair, commitment, derive, new_seed, open_sealed, seal
from fedapp.aggregation.secaggplus.least_sum import ANY, LeastSum
from fedapp.aggregation.secaggplus.shamir import SECRET_BYTES, split
from fedapp.aggregation.whole_numbers.masks import add_mask
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.flower.secagg_crypto import share_keys_plaintext_concat, share_keys_plaintext_separate

__all__ = ["Sealed", "Shared", "advertise", "apply_masks", "mask_key", "receive", "self_key", "share"]

SHARE_BYTES = SECRET_BYTES


@dataclass(frozen=True)
class Shared:
    """What a client sends in the stage "shares": for each neighbour its shares, sealed, and commitments by which the
    server knows forged ones: to its self-mask seed, and by holder to the two shares."""

    sealed: Mapping[int, bytes]
    seed: bytes
    shares: Mapping[int, tuple[bytes, bytes]]


class Sealed(NamedTuple):
    """What a client gets of a neighbour's: two shares, sealed, and the sender's commitments to them."""

    content: bytes
    of_self: bytes
    of_key: bytes


def advertise(run: str, server_round: int, client: int) -> tuple[Secrets, bytes, bytes]:
    """Fresh keys for this round: what to keep, and the two public keys, for sealing and for masks."""
    secrets = Secrets("keys", run, server_round, client, new_seed(), new_seed())
    return secrets, KeyPair(secrets.cipher_seed).public, KeyPair(secrets.mask_seed).public


def share(secrets: Secrets, view: CohortView, *, least: LeastSum = ANY) -> tuple[Secrets, Shared]:
    """Share out the secrets that the sum will need, to this client's neighbours in the cohort."""
    expect(secrets, "keys", view.run, view.server_round)
    view.check()
    me = view.by_client.get(secrets.client)
    pair = KeyPair(secrets.cipher_seed)
    if me is None or (me.cipher_key, me.mask_key) != (pair.public, KeyPair(secrets.mask_seed).public):
        raise ProtocolError("forged", "the cohort does not hold the keys that this client made for this round")
    view.settings.check(len(view.members))
    least.check_cohort(view, secrets.client)
    holders, seed = view.holders(secrets.client), new_seed()
    selfs, keys = (split(secret, view.needed, len(holders)) for secret in (seed, secrets.mask_seed))
    pieces = dict(zip(holders, zip(selfs, keys, strict=True), strict=True))
    sealed = {}
    for holder in view.neighbours(secrets.client):
        key = _sealing_key(pair, view, secrets.client, holder, view.by_client[holder].cipher_key)
        sealed[holder] = seal(key, share_keys_plaintext_concat(secrets.client, holder, *pieces[holder]))
    shares = {
        holder: (
            commitment(of_self, view.digest, "self", secrets.client, holder),
            commitment(of_key, view.digest, "key", secrets.client, holder),
        )
        for holder, (of_self, of_key) in pieces.items()
    }
    kept = replace(
        secrets, stage="shares", self_seed=seed, digest=view.digest, held={secrets.client: pieces[secrets.client]}
    )
    return kept, Shared(sealed, commitment(seed, view.digest, "seed", secrets.client), shares)


def receive(
    secrets: Secrets,
    view: CohortView,
    present: Collection[int],
    sealed: Mapping[int, Sealed],
    *,
    least: LeastSum = ANY,
) -> Secrets:
    """To be done before training: open and check the others' shares. `present`: who has shared; `sealed`: by sender,
    the shares that are for this client. Raises ProtocolError for shares that are forged, missing, or come twice; it
    names all senders of forged ones."""
    expect(secrets, "shares", view.run, view.server_round, view.digest)
    found = subset(view, present, secrets.client, "who has shared")
    least.check(view, secrets.client, found)
    neighbours = [other for other in view.neighbours(secrets.client) if other in found]
    enough(len(neighbours) + 1, view.needed)
    if set(sealed) != set(neighbours):
        raise ProtocolError("forged", "the shares are not those of the neighbours who have shared")
    pair = KeyPair(secrets.cipher_seed)
    held = dict(secrets.held)
    forged: dict[int, str] = {}
    for sender in neighbours:
        key = _sealing_key(pair, view, sender, secrets.client, view.by_client[sender].cipher_key)
        try:
            held[sender] = _opened(key, sealed[sender], view, sender, secrets.client)
        except ValueError as error:
            forged[sender] = str(error)
    if forged:
        first, why = next(iter(forged.items()))
        raise ProtocolError("forged", f"the share from client {first} {why}", accused=forged)
    return replace(secrets, stage="masked", held=held, present=tuple(sorted(found)))


def apply_masks(secrets: Secrets, view: CohortView, vector: NDArray[np.int64]) -> NDArray[Any]:
    """`vector` modulo 2^modulus_bits, with this client's own mask and one for each neighbour."""
    masked = vector.astype(view.settings.dtype)
    add_mask(masked, self_key(secrets.self_seed, view, secrets.client))
    pair, present = KeyPair(secrets.mask_seed), set(secrets.present)
    for other in view.neighbours(secrets.client):
        if other in present:
            key = mask_key(pair, view, secrets.present, secrets.client, other, view.by_client[other].mask_key)
            add_mask(masked, key, negative=other < secrets.client)
    return masked


# --- what both sides know how to make ---------------------------------------------------------------------------


def self_key(seed: bytes, view: CohortView, client: int) -> bytes:
    return derive(seed, view.digest, "self mask", client)


def mask_key(
    pair: KeyPair, view: CohortView, present: Collection[int], client: int, other: int, public: bytes
) -> bytes:
    """The key of the mask that two clients have in common: the one with the lower number adds it. Clients that were
    told that others are `present` have no mask in common."""
    told = hashlib.sha256(struct.pack(f">{len(present)}q", *sorted(present))).digest()
    return pair.agree(public, view.digest, told, "mask", min(client, other), max(client, other))


def _sealing_key(pair: KeyPair, view: CohortView, sender: int, receiver: int, public: bytes) -> bytes:
    return pair.agree(public, view.digest, "shares", sender, receiver)


def _opened(key: bytes, sealed: Sealed, view: CohortView, sender: int, receiver: int) -> tuple[bytes, bytes]:
    """Raises ValueError for what the sender did not make for this client, or not as it has committed itself."""
    content = open_sealed(key, sealed.content)
    if content is None:
        raise ValueError("was not made for this client in this round")
    try:
        source, target, of_self, of_key = share_keys_plaintext_separate(content)
    except (ValueError, IndexError, struct.error):
        raise ValueError("is malformed") from None
    if (source, target) != (sender, receiver) or (len(of_self), len(of_key)) != (SHARE_BYTES, SHARE_BYTES):
        raise ValueError("is malformed")
    told = (("self", of_self, sealed.of_self), ("key", of_key, sealed.of_key))
    if any(commitment(piece, view.digest, kind, sender, receiver) != known for kind, piece, known in told):
        raise ValueError("is not the one that it has committed itself to")
    return of_self, of_key
