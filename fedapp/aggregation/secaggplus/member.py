"""A client's side: four steps, each from what the one before left, and each done at most once.

    advertise -> share -> mask -> unmask

The caller keeps `Secrets` between messages, and deletes them when the client's round is over. A step that is asked for
twice, out of order, or for another run, round or cohort raises ProtocolError, and nothing is sent.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedapp.aggregation.secaggplus.cohort_view import CohortView, effective
from fedapp.aggregation.secaggplus.keys import KeyPair, commitment, derive, new_seed, open_sealed, seal
from fedapp.aggregation.secaggplus.masks import add_mask
from fedapp.aggregation.secaggplus.protocol_error import ProtocolError
from fedapp.aggregation.secaggplus.shamir import SECRET_BYTES, split
from fedapp.flower.secagg_crypto import share_keys_plaintext_concat, share_keys_plaintext_separate

__all__ = ["STAGES", "Revealed", "Secrets", "Shared", "advertise", "apply_masks", "receive", "share", "unmask"]

LEAST_WORTH = 1.2  # clients of equal weight that a sum must be worth: one of two may have some nine tenths
STAGES = ("keys", "shares", "masked", "unmask")
SHARE_BYTES = SECRET_BYTES


@dataclass(frozen=True)
class Secrets:
    """What one client keeps of a round. `stage` is the last one that it has done. `held`: by owner, the shares of its
    self-mask seed and of its mask key, which this client holds. `present`: whose masks are in its vector."""

    stage: str
    run: str
    server_round: int
    client: int
    cipher_seed: bytes
    mask_seed: bytes
    self_seed: bytes = b""
    digest: bytes = b""
    held: Mapping[int, tuple[bytes, bytes]] = field(default_factory=dict)
    present: tuple[int, ...] = ()


@dataclass(frozen=True)
class Shared:
    """What a client sends in the stage "shares": for each neighbour its shares, sealed, and commitments by which the
    server knows forged ones: to its self-mask seed, and by holder to the two shares."""

    sealed: Mapping[int, bytes]
    seed: bytes
    shares: Mapping[int, tuple[bytes, bytes]]


@dataclass(frozen=True)
class Revealed:
    """Shares that a client holds, by owner: of the self-mask seeds of those who sent a vector, and of the mask keys of
    those who did not."""

    self_shares: Mapping[int, bytes]
    key_shares: Mapping[int, bytes]


def advertise(run: str, server_round: int, client: int) -> tuple[Secrets, bytes, bytes]:
    """Fresh keys for this round: what to keep, and the two public keys, for sealing and for masks."""
    secrets = Secrets("keys", run, server_round, client, new_seed(), new_seed())
    return secrets, KeyPair(secrets.cipher_seed).public, KeyPair(secrets.mask_seed).public


def share(secrets: Secrets, view: CohortView, *, min_cohort: int = 2) -> tuple[Secrets, Shared]:
    """Share out the secrets that the sum will need, to this client's neighbours in the cohort."""
    _expect(secrets, "keys", view.run, view.server_round)
    view.check()
    me = view.by_client.get(secrets.client)
    pair = KeyPair(secrets.cipher_seed)
    if me is None or (me.cipher_key, me.mask_key) != (pair.public, KeyPair(secrets.mask_seed).public):
        raise ProtocolError("forged", "the cohort does not hold the keys that this client made for this round")
    view.settings.check(len(view.members))
    check_cohort(view, [member.client for member in view.members], min_cohort)
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
    secrets: Secrets, view: CohortView, present: Collection[int], sealed: Mapping[int, bytes], *, min_cohort: int = 2
) -> Secrets:
    """To be done before training: open and check the others' shares. `present`: who has shared; `sealed`: by sender,
    the shares that are for this client. Raises ProtocolError for shares that are forged, missing, or come twice."""
    _expect(secrets, "shares", view.run, view.server_round, view.digest)
    found = _subset(view, present, secrets.client, "who has shared")
    check_cohort(view, found, min_cohort)
    neighbours = [other for other in view.neighbours(secrets.client) if other in found]
    _enough(len(neighbours) + 1, view.needed)
    if set(sealed) != set(neighbours):
        raise ProtocolError("forged", "the shares are not those of the neighbours who have shared")
    pair = KeyPair(secrets.cipher_seed)
    held = dict(secrets.held)
    for sender in neighbours:
        key = _sealing_key(pair, view, sender, secrets.client, view.by_client[sender].cipher_key)
        held[sender] = _opened(key, sealed[sender], sender, secrets.client)
    return replace(secrets, stage="masked", held=held, present=tuple(sorted(found)))


def apply_masks(secrets: Secrets, view: CohortView, vector: NDArray[np.int64]) -> NDArray[Any]:
    """`vector` modulo 2^modulus_bits, with this client's own mask and one for each neighbour."""
    masked = vector.astype(view.settings.dtype)
    add_mask(masked, self_key(secrets.self_seed, view, secrets.client))
    pair, present = KeyPair(secrets.mask_seed), set(secrets.present)
    for other in view.neighbours(secrets.client):
        if other in present:
            key = mask_key(pair, view, secrets.client, other, view.by_client[other].mask_key)
            add_mask(masked, key, negative=other < secrets.client)
    return masked


def unmask(
    secrets: Secrets,
    view: CohortView,
    survivors: Collection[int],
    dropped: Collection[int],
    *,
    min_cohort: int = 2,
) -> Revealed:
    """The shares that open the sum over `survivors`. The caller must delete `secrets`, whatever comes of it: of each
    neighbour a client reveals one kind of share, once."""
    _expect(secrets, "masked", view.run, view.server_round, view.digest)
    both = sorted(set(survivors) & set(dropped))
    if both:
        raise ProtocolError(
            "both secrets", f"the server asks for the self-mask and the mask key of clients {both[:10]}"
        )
    found = _subset(view, survivors, secrets.client, "whose vectors came")
    if found | set(dropped) != set(secrets.present) or len(dropped) != len(set(dropped)):
        raise ProtocolError("wrong cohort", "survivors and dropped clients are not together those who have shared")
    check_cohort(view, found, min_cohort)
    holders = [other for other in view.holders(secrets.client) if other in secrets.present]
    _enough(sum(other in found for other in holders), view.needed)
    return Revealed(
        {other: secrets.held[other][0] for other in holders if other in found},
        {other: secrets.held[other][1] for other in holders if other not in found},
    )


# --- what both sides know how to make ---------------------------------------------------------------------------


def self_key(seed: bytes, view: CohortView, client: int) -> bytes:
    return derive(seed, view.digest, "self mask", client)


def mask_key(pair: KeyPair, view: CohortView, client: int, other: int, public: bytes) -> bytes:
    """The key of the mask that two clients have in common: the one with the lower number adds it."""
    return pair.agree(public, view.digest, "mask", min(client, other), max(client, other))


def _sealing_key(pair: KeyPair, view: CohortView, sender: int, receiver: int, public: bytes) -> bytes:
    return pair.agree(public, view.digest, "shares", sender, receiver)


def check_cohort(view: CohortView, clients: Collection[int], min_cohort: int) -> None:
    """Raises ProtocolError where a sum over so few clients, or over weights so uneven, would tell too much.

    Half of `min_cohort` clients must count, and none have more than some nine tenths of the weight: with weights a
    server could leave all but one out of the sum.
    """
    if len(clients) < min_cohort:
        raise ProtocolError(
            "too few", f"{len(clients)} clients in the sum, this client asks for {min_cohort} (min-cohort)"
        )
    worth = effective([view.by_client[client] for client in clients])
    if worth < (least := max(LEAST_WORTH, min_cohort / 2)):
        raise ProtocolError(
            "too few",
            f"by their weights {len(clients)} clients count as {worth:.2f} of equal weight, this client asks for"
            f" {least:g} (half of min-cohort, at least {LEAST_WORTH})",
        )


# --- checks -----------------------------------------------------------------------------------------------------


def _expect(secrets: Secrets, stage: str, run: str, server_round: int, digest: bytes | None = None) -> None:
    if run != secrets.run:
        raise ProtocolError("wrong run", f"this client takes part in run {secrets.run}, not {run}")
    if server_round != secrets.server_round:
        raise ProtocolError(
            "wrong round", f"this client takes part in round {secrets.server_round}, not {server_round}"
        )
    done, wanted = STAGES.index(secrets.stage), STAGES.index(stage)
    if done > wanted:
        raise ProtocolError("replayed", f"the stage {STAGES[wanted + 1]} of round {server_round} is done already")
    if done < wanted:
        raise ProtocolError("wrong stage", f"the stage {STAGES[wanted]} of round {server_round} comes first")
    if digest is not None and digest != secrets.digest:
        raise ProtocolError("wrong cohort", "this is about another cohort, model or settings than before")


def _subset(view: CohortView, clients: Collection[int], me: int, what: str) -> set[int]:
    found = set(clients)
    if len(found) != len(clients) or not found <= view.by_client.keys():
        raise ProtocolError("forged", f"the list of {what} names clients twice, or strangers")
    if me not in found:
        raise ProtocolError("forged", f"the list of {what} lacks this client")
    return found


def _enough(found: int, needed: int) -> None:
    if found < needed:
        raise ProtocolError("too few", f"{found} of those who hold this client's shares are left, {needed} are needed")


def _opened(key: bytes, sealed: bytes, sender: int, receiver: int) -> tuple[bytes, bytes]:
    content = open_sealed(key, sealed)
    if content is None:
        raise ProtocolError("forged", f"the share from client {sender} was not made for this client in this round")
    source, target, of_self, of_key = share_keys_plaintext_separate(content)
    if (source, target) != (sender, receiver) or (len(of_self), len(of_key)) != (SHARE_BYTES, SHARE_BYTES):
        raise ProtocolError("forged", f"the share from client {sender} is malformed")
    return of_self, of_key
