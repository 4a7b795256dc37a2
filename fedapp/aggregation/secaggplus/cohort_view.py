"""What the clients of a round agree on: who they are, what each counts, which model they train, and how they aggregate.

Every key of the round is derived for the digest of its view, so clients that were told different things have nothing
in common: shares cannot be opened, masks do not cancel, and nothing is revealed.
"""

import hashlib
import math
import random
import struct
from collections.abc import Collection
from dataclasses import astuple, dataclass
from functools import cached_property

from fedapp.aggregation.secaggplus.keys import KEY_BYTES
from fedapp.aggregation.secaggplus.settings import Settings
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.common.device_keys import signer

__all__ = [
    "CohortView",
    "Member",
]

WEIGHT_SLACK = 1e-6


@dataclass(frozen=True)
class Member:
    """A client of the cohort: its normalised weight and the public keys that it made for this round.

    `signature`: by the key of its device over these keys, where there is one.
    """

    client: int
    weight: float
    cipher_key: bytes
    mask_key: bytes
    signature: bytes = b""


@dataclass(frozen=True)
class CohortView:
    """`model`: the SHA-256 of the global model, and `work` that of all else that decides what an update is
    (`whole_numbers/work_digest.py`), so that a server cannot give each client another one. `members` ascend by client.
    """

    run: str
    server_round: int
    model: str
    members: tuple[Member, ...]
    settings: Settings
    work: str = ""

    @cached_property
    def digest(self) -> bytes:
        setting = self.settings
        parts = [
            b"fedapp secure aggregation 1",
            self.run.encode(),
            struct.pack(">q", self.server_round),
            self.model.encode(),
            self.work.encode(),
            repr(astuple(setting)).encode(),
        ]
        for member in self.members:
            parts += [struct.pack(">qd", member.client, member.weight), member.cipher_key, member.mask_key]
            parts += [signer(member.signature)]
        return hashlib.sha256(b"".join(struct.pack(">I", len(part)) + part for part in parts)).digest()

    @cached_property
    def by_client(self) -> dict[int, Member]:
        return {member.client: member for member in self.members}

    @cached_property
    def needed(self) -> int:
        """How many holders of shares rebuild a secret."""
        return self.settings.needed(len(self.members))

    @cached_property
    def _graph(self) -> dict[int, tuple[int, ...]]:
        """A Harary graph on a random order of the cohort (Bell et al. 2020, section 3.3): a ring in which everyone
        knows the next k / 2 on either side. The order follows from the digest: whoever asks for keys does not choose
        it."""
        clients = [member.client for member in self.members]
        degree = self.settings.degree(len(clients))
        if degree >= len(clients) - 1:
            return {client: tuple(other for other in clients if other != client) for client in clients}
        random.Random(self.digest.hex()).shuffle(clients)  # SHA-512 of the text: alike in every version
        around = [*range(-(degree // 2), 0), *range(1, degree // 2 + 1)]
        count = len(clients)
        return {
            client: tuple(sorted(clients[(place + step) % count] for step in around))
            for place, client in enumerate(clients)
        }

    def neighbours(self, client: int) -> tuple[int, ...]:
        return self._graph[client]

    def holders(self, client: int) -> tuple[int, ...]:
        """Who has a share of this client's secrets, in the order of the shares: its neighbours and itself."""
        return tuple(sorted((*self._graph[client], client)))

    def component(self, client: int, among: Collection[int]) -> set[int]:
        """The clients of `among` that masks connect with `client`, itself included: the smallest part of a sum over
        `among` that can be unmasked without the rest."""
        left, found = set(among) - {client}, {client}
        edge = found
        while edge:
            edge = {other for one in edge for other in self._graph[one]} & left
            left -= edge
            found = found | edge
        return found

    def check(self) -> None:
        """Raises ProtocolError for what no honest server would propose."""
        clients = [member.client for member in self.members]
        if clients != sorted(set(clients)) or len(clients) < 2:
            raise ProtocolError("wrong cohort", "its clients are not listed once each, in order, and at least two")
        keys = [key for member in self.members for key in (member.cipher_key, member.mask_key)]
        if len(set(keys)) != len(keys) or any(len(key) != KEY_BYTES for key in keys):
            raise ProtocolError("forged", "a public key of the cohort is there twice, or is none")
        weights = [member.weight for member in self.members]
        if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
            raise ProtocolError("forged", "a weight of the cohort is negative or no number")
        if abs(math.fsum(weights) - 1) > WEIGHT_SLACK:
            raise ProtocolError("forged", f"the weights of the cohort sum to {math.fsum(weights):g}, not to one")
