"""Sums through a helper without a federation: clients' tags, the helper's half, and what a server may ask it."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, RecordDict
from numpy.typing import NDArray

from fedapp.aggregation.helper.carrier import Bytes, Carrier
from fedapp.aggregation.helper.helper_messages import (
    HELPER_KEYS,
    SumRequest,
    pack_sum_request,
    unpack_run_keys,
    unpack_sum_reply,
)
from fedapp.aggregation.helper.helper_site import HelperSite
from fedapp.aggregation.helper.masked_integers import MaskedIntegers
from fedapp.aggregation.helper.released import FILE, Released
from fedapp.aggregation.helper.run_keys import RunKeys
from fedapp.aggregation.helper.tags import Bound, Tag, mask_key, new_seed, sealed_tag
from fedapp.aggregation.whole_numbers.fixed_point import FixedPoint
from fedapp.aggregation.whole_numbers.noted_file import NotedFile
from fedapp.common.device_keys import Identity, Peers

RUN, MODEL, CONFIG, WORK = "00112233445566aa", "m" * 64, "c" * 64, "w" * 64
NUMBERS = FixedPoint(bits=12)
HELPER_KEY = Identity(ec.generate_private_key(ec.SECP384R1()))
DEVICES = [Identity(ec.generate_private_key(ec.SECP384R1())) for _ in range(8)]


def no_training(*_: Any) -> Any:
    raise AssertionError("a helper trains nobody")


@dataclass
class Client:
    """What one client sends: its tag, its vector, and the masked vector."""

    tag: Tag
    vector: NDArray[np.int64]
    carried: Bytes
    seed: bytes


@dataclass
class Played:
    """A helper with devices 0 to 7 as peers, and whoever sends in a round. `folder`: where it notes what it
    released."""

    carrier: Carrier = field(default_factory=lambda: MaskedIntegers(NUMBERS))
    folder: Path | None = None
    signed: bool = True
    min_cohort: int = 2
    length: int = 40
    cohort: int = 8
    state: RecordDict = field(default_factory=RecordDict)

    def __post_init__(self) -> None:
        peers = Peers({client: device.public for client, device in enumerate(DEVICES)})
        self.site = HelperSite(
            self.carrier,
            CONFIG,
            Released(NotedFile(self.folder, FILE) if self.folder is not None else None),
            identity=HELPER_KEY if self.signed else None,
            peers=peers if self.signed else None,
            min_cohort=self.min_cohort,
        )
        self.keys = self.ask_keys(RUN)

    def ask_keys(self, run: str) -> RunKeys:
        content = RecordDict({HELPER_KEYS: ConfigRecord({"run": run, "version": -1})})
        reply = self.site.stages["helper-keys"](content, self.state, no_training)
        return unpack_run_keys(reply.config_records[HELPER_KEYS])

    def bound(self, **changes: Any) -> Bound:
        return replace(Bound(RUN, 1, self.cohort, MODEL, CONFIG, WORK, self.keys.key), **changes)

    def client(
        self, client: int, *, weight: float = 1.0, min_cohort: int = 2, identity: Identity | None = None, **changes: Any
    ) -> Client:
        """`changes`: of what its tag is bound to."""
        bound, seed = self.bound(**changes), new_seed()
        own = identity or (DEVICES[client] if self.signed else None)
        tag = sealed_tag(seed, bound, client, weight, min_cohort, own)
        most = 2 ** (NUMBERS.bits - 1)
        vector = np.random.default_rng(client).integers(-most, most + 1, self.length)
        key = mask_key(seed, bound.run, bound.server_round, bound.model, client)
        return Client(tag, vector, self.carrier.hide([(vector, [key])], self.keys.public, self.length), seed)

    def added(self, clients: Collection[Client]) -> Bytes:
        adder = self.carrier.adder(self.keys.public, self.length)
        for client in clients:
            adder.add(client.carried)
        found = adder.total()
        adder.close()
        return found

    def ask(self, tags: Sequence[Tag], carried: Bytes | None = None, **changes: Any) -> Mapping[str, Any]:
        """What the helper gives. Raises ProtocolError for a refusal."""
        request = SumRequest(self.bound(**changes), tuple(tags), self.length, carried)
        reply = self.site.stages["helper-sum"](pack_sum_request(request), self.state, no_training)
        return {name: value.numpy() for name, value in unpack_sum_reply(reply)[0].items()}

    def sum(self, clients: Sequence[Client]) -> NDArray[np.int64]:
        """As an honest server learns it."""
        carried = self.added(clients)
        found = self.ask([client.tag for client in clients], None if self.carrier.gives_masks else carried)
        if "total" in found:
            return np.asarray(found["total"])
        return self.carrier.read(self.carrier.without(carried, found["masks"], self.length), self.length)


def plain(clients: Collection[Client]) -> NDArray[np.int64]:
    return np.sum([client.vector for client in clients], axis=0)


def looks_random(values: NDArray[np.int64], modulus: int) -> bool:
    """Whether these many values are spread as uniform ones are: their mean square is that of the modulus."""
    expected = modulus / math.sqrt(12)
    return bool(0.5 * expected < float(np.sqrt(np.mean(values.astype(float) ** 2))) < 1.5 * expected)
