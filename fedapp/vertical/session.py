"""Who takes part in a session, with which keys: what all parties must see alike before any of them sends anything."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property

from fedapp.common.device_keys import Identity, Peers, is_signed, signer
from fedapp.vertical.party_error import PartyError

__all__ = ["MOST_PARTIES", "Party", "View", "signed"]

PURPOSE = "vertical session keys"
MOST_PARTIES = 1000
KEY_BYTES = 32


@dataclass(frozen=True)
class Party:
    """What a party says of itself at the beginning. `client`: the number that its device's key is bound to. `key`: its
    public key for this session; `signature`: by its device, of that key and who it is. `labels`: whether it has them.
    `columns` and `rows`: how many."""

    name: str
    client: int
    labels: bool
    columns: int
    rows: int
    key: bytes
    signature: bytes = b""

    def told(self, session: str, config: str) -> tuple[str | int | bytes, ...]:
        """What the signature is of."""
        return session, config, self.name, self.client, int(self.labels), self.key


def signed(party: Party, identity: Identity | None, session: str, config: str) -> Party:
    """`party` with its device's signature, where it has a key to sign with."""
    if identity is None:
        return party
    return replace(party, signature=identity.sign(PURPOSE, *party.told(session, config)))


@dataclass(frozen=True)
class View:
    """All parties of a session, in the order of their names. `config`: the digest of what they compute."""

    session: str
    config: str
    parties: tuple[Party, ...]

    @cached_property
    def digest(self) -> bytes:
        rows = [{**asdict(p), "key": p.key.hex(), "signature": p.signature.hex()} for p in self.parties]
        return hashlib.sha256(json.dumps([self.session, self.config, rows], sort_keys=True).encode()).digest()

    @cached_property
    def by_name(self) -> Mapping[str, Party]:
        return {party.name: party for party in self.parties}

    @property
    def label_party(self) -> str:
        return next(party.name for party in self.parties if party.labels)

    @property
    def others(self) -> tuple[str, ...]:
        """The parties without labels."""
        return tuple(party.name for party in self.parties if not party.labels)

    def check(self, me: Party, config: str, label_party: str) -> None:
        """Raises PartyError for a view in which this party is not as it said, or that cannot be anybody's."""
        names = [party.name for party in self.parties]
        if names != sorted(set(names)) or not 2 <= len(names) <= MOST_PARTIES:
            raise PartyError("forged", "the parties of the session are not two or more, each once and in order")
        if len({party.client for party in self.parties}) != len(names):
            raise PartyError("forged", "two parties say that they are the same client")
        if self.config != config:
            raise PartyError("forged", "the session is of another config than this party's")
        if self.by_name.get(me.name) != me:
            raise PartyError("forged", "the session does not hold the key that this party made for it")
        if [party.name for party in self.parties if party.labels] != [label_party]:
            raise PartyError("forged", f"the party with the labels must be {label_party} alone (vertical.label_party)")
        if any(len(party.key) != KEY_BYTES for party in self.parties):
            raise PartyError("forged", f"a session key has other than {KEY_BYTES} bytes")
        if len({party.key for party in self.parties}) != len(names):
            raise PartyError("replayed", "two parties have the same session key")

    def check_signed(self, peers: Peers | None, *, required: bool) -> None:
        """Raises PartyError unless each party's key is signed by the device that `peers` holds for its client; without
        peers, by any device, each by another one, where signatures are `required`, as on devices."""
        used: set[bytes] = set()
        for party in self.parties:
            told = party.told(self.session, self.config)
            if peers is not None:
                fault = peers.fault(party.client, party.signature, PURPOSE, *told)
            elif not party.signature:
                fault = "signed by no device" if required else None
            elif signer(party.signature) in used:
                fault = "signed by the device of another party"
            else:
                fault = None if is_signed(party.signature, PURPOSE, *told) else "not what its device signed"
            used.add(signer(party.signature))
            if fault is not None:
                raise PartyError("forged", f"the session key of party {party.name}: {fault}")
