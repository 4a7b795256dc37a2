"""The server's side of a round: it collects replies, passes shares on, and unmasks the survivors' aggregate.

There is one method for each kind of reply. It raises ProtocolError for a reply that cannot be used, and then keeps
nothing of it. One method closes each stage. It raises ProtocolError where too few clients are left. Masked vectors are
added up as they arrive, each batch that is incomplete by itself, under its clients' own masks; so the collector never
holds what would reveal a single update.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedapp.aggregation.secaggplus.batches import WHOLE, BatchSums, in_complete
from fedapp.aggregation.secaggplus.cohort_view import CohortView, Member
from fedapp.aggregation.secaggplus.keys import KEY_BYTES, KeyPair, commitment
from fedapp.aggregation.secaggplus.member import Sealed, Shared, mask_key, self_key
from fedapp.aggregation.secaggplus.settings import Settings
from fedapp.aggregation.secaggplus.shamir import SECRET_BYTES, combine
from fedapp.aggregation.secaggplus.signing import signed_keys, signed_list
from fedapp.aggregation.secaggplus.unmasking import Revealed, list_digest
from fedapp.aggregation.whole_numbers.masks import add_mask
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.aggregation.whole_numbers.quantise import signed
from fedapp.common.errors import ConfigError

__all__ = ["Collector", "Unmasked"]


class Unmasked:
    """The sum that was unmasked. `survivors`: whose vectors are in it. `shares_refused`: which shares were forged."""

    def __init__(self, total: NDArray[np.int64], survivors: Sequence[int], shares_refused: Sequence[str]) -> None:
        self.total, self.survivors, self.shares_refused = total, tuple(survivors), tuple(shares_refused)


class Collector:
    """`weights`: of the clients asked, in any unit. `minimum`: a sum over fewer clients is not unmasked. `work`: the
    digest of what they are asked to do."""

    def __init__(
        self,
        settings: Settings,
        *,
        run: str,
        server_round: int,
        model: str,
        weights: Mapping[int, float],
        length: int,
        minimum: int = 2,
        work: str = "",
    ) -> None:
        self.settings, self.minimum, self.length = settings, max(2, minimum), length
        self.run, self._round, self._model, self._weights = run, server_round, model, weights
        self._stage, self._work = "keys", work
        self._keys: dict[int, tuple[bytes, bytes, bytes]] = {}
        self._shared: dict[int, Shared] = {}
        self._masked: set[int] = set()
        self._sums = BatchSums(settings.batch)
        self._total: NDArray[Any] = np.zeros(length, settings.dtype)
        self.left_out: set[int] = set()  # with nothing wrong but that their batch is incomplete
        self._self: dict[int, dict[int, bytes]] = {}  # by owner and holder, the shares of self-mask seeds
        self._key: dict[int, dict[int, bytes]] = {}  # the same of mask keys
        self._revealed: set[int] = set()
        self.signatures: dict[int, bytes] = {}  # of the list of survivors
        self.refused: list[str] = []
        self.view: CohortView
        self.present: tuple[int, ...] = ()
        self.survivors: tuple[int, ...] = ()
        self.revealing: tuple[int, ...] = ()  # the survivors, once devices were asked to reveal shares

    @property
    def heard(self) -> set[int]:
        """Who has sent keys."""
        return set(self._keys)

    @property
    def complete(self) -> set[int]:
        """Who of them is in a batch of which all have."""
        return in_complete(self._keys, self.settings.batch)

    # --- keys ---------------------------------------------------------------------------------------------------

    def add_keys(self, client: int, cipher_key: bytes, mask_key: bytes, signature: bytes = b"") -> None:
        self._expect("keys", client, self._weights, self._keys)
        known = {key for pair in self._keys.values() for key in pair[:2]}
        if len({cipher_key, mask_key}) != 2 or {cipher_key, mask_key} & known:
            raise ProtocolError("replayed", "a public key that is there already")
        if (len(cipher_key), len(mask_key)) != (KEY_BYTES, KEY_BYTES):
            raise ProtocolError(
                "truncated", f"public keys of {len(cipher_key)} and {len(mask_key)} bytes, not {KEY_BYTES}"
            )
        probe = KeyPair(bytes(SECRET_BYTES))
        for key in (cipher_key, mask_key):
            probe.agree(key)  # raises ProtocolError for what is no key
        made = Member(client, 0.0, cipher_key, mask_key, signature)
        if signature and not signed_keys(self.run, self._round, made):
            raise ProtocolError("forged", "its keys are not those that its device signed")
        self._keys[client] = (cipher_key, mask_key, signature)

    def close_keys(self) -> CohortView:
        """The round's view: those who sent keys, with the weights that they have among themselves."""
        clients = sorted(self.complete)
        self.left_out |= self._keys.keys() - clients
        self._enough(len(clients), "sent keys", self.minimum)
        total = sum(self._weights[client] for client in clients)
        if total <= 0:
            raise ProtocolError("wrong cohort", "none of those who sent keys has a weight")
        settings = self.settings.at(len(clients))
        members = (Member(client, self._weights[client] / total, *self._keys[client]) for client in clients)
        self.view = CohortView(self.run, self._round, self._model, tuple(members), settings, self._work)
        self._enough(len(clients), "sent keys", self.view.needed)
        self.settings = self.view.settings
        self._total = np.zeros(self.length, self.settings.dtype)
        try:
            self.settings.check(len(clients))
        except ConfigError as error:  # the cohort has another size than was foreseen
            raise ProtocolError("wrong cohort", str(error)) from None
        self._stage = "shares"
        return self.view

    # --- shares -------------------------------------------------------------------------------------------------

    def add_shares(self, client: int, shared: Shared) -> None:
        self._expect("shares", client, self.view.by_client, self._shared)
        if set(shared.sealed) != set(self.view.neighbours(client)):
            raise ProtocolError("forged", "its shares are not for its neighbours, each one")
        if set(shared.shares) != set(self.view.holders(client)):
            raise ProtocolError("forged", "its commitments are not to its holders' shares")
        self._shared[client] = shared

    def close_shares(self) -> tuple[int, ...]:
        """Who can go on: whose secrets could be rebuilt from those who can go on."""
        present = set(self._shared)
        while True:
            lost = {c for c in present if len(present.intersection(self.view.holders(c))) < self.view.needed}
            torn = present - lost - in_complete(present - lost, self.settings.batch)
            self.left_out |= torn
            if not lost | torn:
                break
            present -= lost | torn
        self._enough(len(present), "shared their secrets with enough others", max(self.minimum, self.view.needed))
        self.present = tuple(sorted(present))
        self._stage = "masked"
        return self.present

    def sealed_for(self, client: int) -> dict[int, Sealed]:
        """By sender, the shares that are for `client`."""
        senders = (other for other in self.view.neighbours(client) if other in self.present)
        found = ((sender, self._shared[sender]) for sender in senders)
        return {sender: Sealed(shared.sealed[client], *shared.shares[client]) for sender, shared in found}

    # --- masked vectors -----------------------------------------------------------------------------------------

    def add_masked(self, clients: Sequence[int], vector: NDArray[Any]) -> None:
        """Add a vector that is the sum of these clients' masked vectors, whole or not at all."""
        if not clients or len(set(clients)) != len(clients):
            raise ProtocolError("forged", "a masked vector of nobody, or twice of the same client")
        for client in clients:
            self._expect("masked", client, self.present, self._masked)
        if vector.shape != self._total.shape or vector.dtype != self._total.dtype:
            raise ProtocolError(
                "truncated", f"a masked vector is {vector.dtype} {vector.shape}, not {self._total.shape}"
            )
        self._sums.add(clients, vector)
        self._masked |= set(clients)

    def close_masked(self) -> tuple[int, ...]:
        """Whose vectors are in the sum."""
        self.left_out |= self._masked - self._sums.complete
        self._masked = set(self._sums.complete)
        self._enough(len(self._masked), "sent a masked vector", max(self.minimum, self.view.needed))
        self._total = self._sums.vectors.pop(WHOLE)
        self.survivors = tuple(sorted(self._masked))
        self._stage = "unmask"
        return self.survivors

    @property
    def dropped(self) -> tuple[int, ...]:
        """Who has shared, and has no vector in the sum: their masks are in the others' vectors."""
        return tuple(client for client in self.present if client not in self._masked)

    # --- consistency --------------------------------------------------------------------------------------------

    @property
    def signers(self) -> tuple[int, ...]:
        """Survivors whose devices sign."""
        return tuple(client for client in self.survivors if self.view.by_client[client].signature)

    def add_signature(self, client: int, signature: bytes) -> None:
        """Take a client's signature of the list of survivors."""
        self._expect("unmask", client, self.signers, self.signatures)
        if not signed_list(self.view, client, signature, list_digest(self.view, self.survivors, self.dropped)):
            raise ProtocolError("forged", "it has not signed this list of survivors")
        self.signatures[client] = signature

    # --- unmasking ----------------------------------------------------------------------------------------------

    def add_revealed(self, client: int, revealed: Revealed) -> None:
        """Take a client's shares. One that does not fit its commitment is left out, and named in `refused`."""
        self._expect("unmask", client, self.survivors, self._revealed)
        owners = [other for other in self.view.holders(client) if other in self.present]
        selfs = {other for other in owners if other in self._masked}
        if set(revealed.self_shares) & set(revealed.key_shares):
            raise ProtocolError("both secrets", "it reveals the self-mask and the mask key of the same client")
        if set(revealed.self_shares) != selfs or set(revealed.key_shares) != set(owners) - selfs:
            raise ProtocolError("forged", "its shares are not those that it was asked for")
        self._revealed.add(client)
        for kind, given, found in (("self", revealed.self_shares, self._self), ("key", revealed.key_shares, self._key)):
            for owner, piece in given.items():
                known = self._shared[owner].shares[client][kind == "key"]
                if commitment(piece, self.view.digest, kind, owner, client) != known:
                    self.refused.append(f"forged: client {client}'s share of client {owner}'s secret")
                    continue
                found.setdefault(owner, {})[client] = piece

    def unmask(self) -> Unmasked:
        """The sum over the survivors, once enough of them have revealed their shares."""
        if self._stage != "unmask":
            raise ProtocolError("wrong stage", f"nothing can be unmasked in the stage {self._stage}")
        seeds = {client: self._rebuilt(client, self._self) for client in self.survivors}
        pairs = {client: KeyPair(self._rebuilt(client, self._key)) for client in self.dropped}
        for client, seed in seeds.items():
            if commitment(seed, self.view.digest, "seed", client) != self._shared[client].seed:
                why = f"the shares that client {client} made do not give its self-mask seed"
                raise ProtocolError("forged", why, accused=[client])
        for client, pair in pairs.items():
            if pair.public != self.view.by_client[client].mask_key:
                why = f"the shares that client {client} made do not give its mask key"
                raise ProtocolError("forged", why, accused=[client])
        self._stage = "unmasked"
        for client, seed in seeds.items():
            add_mask(self._total, self_key(seed, self.view, client), negative=True)
        for client, pair in pairs.items():
            for other in self.view.neighbours(client):
                if other in self._masked:
                    # What `other` added for this pair is taken away.
                    key = mask_key(pair, self.view, self.present, client, other, self.view.by_client[other].mask_key)
                    add_mask(self._total, key, negative=other < client)
        return Unmasked(self._screened(signed(self._total, self.settings)), self.survivors, self.refused)

    def _rebuilt(self, owner: int, found: Mapping[int, Mapping[int, bytes]]) -> bytes:
        pieces, needed = found.get(owner, {}), self.view.needed
        if len(pieces) < needed:
            raise ProtocolError(
                "too few", f"{len(pieces)} of those who hold client {owner}'s shares revealed them, {needed} are needed"
            )
        numbers = {holder: number for number, holder in enumerate(self.view.holders(owner), start=1)}
        return combine({numbers[holder]: pieces[holder] for holder in sorted(pieces)[:needed]})

    def _screened(self, total: NDArray[np.int64]) -> NDArray[np.int64]:
        """No honest clients' values sum to more than this: whoever sends other vectors spoils the sum, and is found."""
        most = self.settings.largest_sum(len(self.view.members))
        if len(total) and max(int(total.max()), -int(total.min())) > most:
            raise ProtocolError(
                "forged", "the sum is larger than clipped values can make it: a vector was not a masked one"
            )
        return total

    # --- checks -------------------------------------------------------------------------------------------------

    def _expect(self, stage: str, client: int, asked: Any, done: Any) -> None:
        if self._stage != stage:
            raise ProtocolError("wrong stage", f"a reply for the stage {stage} in the stage {self._stage}")
        if client not in asked:
            raise ProtocolError("forged", f"client {client} was not asked")
        if client in done:
            raise ProtocolError("replayed", f"client {client} has answered already")

    @staticmethod
    def _enough(found: int, what: str, needed: int) -> None:
        if found < needed:
            raise ProtocolError("too few", f"{found} clients {what}, {needed} are needed")
