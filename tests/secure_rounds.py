"""A round of the protocol without federation: clients and server pass each other values."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedapp.aggregation.secaggplus import member as protocol
from fedapp.aggregation.secaggplus.cohort_view import CohortView
from fedapp.aggregation.secaggplus.collector import Collector
from fedapp.aggregation.secaggplus.kept import Secrets
from fedapp.aggregation.secaggplus.least_sum import ANY, LeastSum
from fedapp.aggregation.secaggplus.member import Sealed
from fedapp.aggregation.secaggplus.settings import Settings
from fedapp.aggregation.secaggplus.signing import sign_keys
from fedapp.aggregation.secaggplus.unmasking import unmask
from fedapp.aggregation.whole_numbers.quantise import pack, unpack
from fedapp.common.device_keys import Identity

RUN, ROUND, MODEL = "00112233445566aa", 3, "m" * 64


def mask(
    secrets: Secrets,
    view: CohortView,
    present: Collection[int],
    sealed: Mapping[int, Sealed],
    vector: NDArray[np.int64],
    *,
    least: LeastSum = ANY,
) -> tuple[Secrets, NDArray[Any]]:
    """A client's masked vector, without the training that comes between the two steps."""
    secrets = protocol.receive(secrets, view, present, sealed, least=least)
    return secrets, protocol.apply_masks(secrets, view, vector)


@dataclass
class Played:
    """A round as far as `upto`; by client what it keeps, and the masked vectors that were sent."""

    server: Collector
    secrets: dict[int, Secrets]
    vectors: dict[int, NDArray[np.int64]]
    masked: dict[int, NDArray[np.uint32]] = field(default_factory=dict)

    @property
    def view(self) -> CohortView:
        return self.server.view

    def plain(self, clients: Collection[int]) -> NDArray[np.int64]:
        return sum((self.vectors[client] for client in sorted(clients)), np.zeros(self.server.length, np.int64))


def play(
    cohort: int,
    settings: Settings,
    *,
    length: int = 50,
    seed: int = 0,
    gone: tuple[Collection[int], ...] = ((), (), (), ()),
    upto: str = "unmask",
    server_round: int = ROUND,
    identities: Sequence[Identity] = (),
    own: Mapping[int, NDArray[np.int64]] | None = None,
    least: LeastSum = ANY,
) -> Played:
    """`gone`: who drops out before each of the four stages. Stops after the stage `upto`. `identities`: of clients that
    sign; the stage consistency is left to the caller. `own`: the clients' vectors, instead of random ones; `least`:
    what each of them asks of the sum."""
    random = np.random.default_rng(seed)
    most = 2 ** (settings.bits - 1)
    vectors = dict(own or {client: random.integers(-most, most + 1, length) for client in range(cohort)})
    server = Collector(
        settings,
        run=RUN,
        server_round=server_round,
        model=MODEL,
        weights=dict.fromkeys(range(cohort), 1.0),
        length=length,
    )
    played = Played(server, {}, vectors)
    away = [set().union(*gone[: number + 1]) for number in range(4)]
    for client in set(range(cohort)) - away[0]:
        played.secrets[client], *keys = protocol.advertise(RUN, server_round, client)
        told = (RUN, server_round, client, *keys)
        server.add_keys(client, *keys, sign_keys(identities[client], *told) if identities else b"")
    if upto == "keys":
        return played
    view = server.close_keys()
    for client in sorted(played.secrets.keys() - away[1]):
        played.secrets[client], shared = protocol.share(played.secrets[client], view, least=least)
        server.add_shares(client, shared)
    if upto == "shares":
        return played
    present = server.close_shares()
    for client in sorted(set(present) - away[2]):
        played.secrets[client], vector = mask(
            played.secrets[client], view, present, server.sealed_for(client), vectors[client], least=least
        )
        played.masked[client] = vector
        server.add_masked([client], unpack(pack(vector, settings), settings, length))
    if upto == "masked":
        return played
    survivors = server.close_masked()
    for client in sorted(set(survivors) - away[3]):
        revealed = unmask(played.secrets.pop(client), view, survivors, server.dropped, least=least)
        server.add_revealed(client, revealed)
    return played
