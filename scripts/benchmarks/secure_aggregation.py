"""What secure aggregation costs: bytes and seconds of one client, and of the server, by the size of the cohort."""

import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric import ec
from numpy.typing import NDArray

from benchmarks.models import MODELS
from benchmarks.result import Point, Result, Table
from benchmarks.timing import Timed
from fedapp.aggregation.secaggplus import member as protocol
from fedapp.aggregation.secaggplus.answers import key_answers, revealed_answers, shared_answers
from fedapp.aggregation.secaggplus.batches import WHOLE
from fedapp.aggregation.secaggplus.collector import Collector, Unmasked
from fedapp.aggregation.secaggplus.kept import Secrets
from fedapp.aggregation.secaggplus.least_sum import LeastSum
from fedapp.aggregation.secaggplus.masked_message import pack_masked_reply
from fedapp.aggregation.secaggplus.messages import Header, pack_answers
from fedapp.aggregation.secaggplus.settings import Settings
from fedapp.aggregation.secaggplus.signing import check_signed_keys, sign_keys, sign_list
from fedapp.aggregation.secaggplus.unmasking import agree, unmask
from fedapp.aggregation.whole_numbers.quantise import pack, quantise, unpack
from fedapp.common.device_keys import Identity, Peers
from fedapp.models.shared_state import shared_state
from fedapp.wire.records import content_bytes
from fedapp.wire.reply import ClientReport, Reply

# Everyone as neighbour (Bonawitz et al. 2017), where what a client shares grows as the square of the cohort, and with
# some (SecAgg+).
COHORTS = ((None, 10), (None, 30), (None, 100), (32, 100), (32, 300))
DROPOUTS = 0.1  # of a cohort, between sharing and masking
MEASURED = 3  # clients of a round whose work is timed
RUN, MODEL = "0123456789abcdef", "0" * 64
IDENTITIES = [Identity(ec.generate_private_key(ec.SECP384R1())) for _ in range(max(size for _, size in COHORTS))]
HEADER = Header("masked", RUN, 1, (0,), bytes(32))


@dataclass
class Costs:
    """Of one round: CPU seconds of single clients by stage, of the server from the last vector to the sum, and bytes
    that one client sends. `sign`: of a device, for its signatures and for checking the others' of their keys."""

    share: list[float] = field(default_factory=list)
    mask: list[float] = field(default_factory=list)
    unmask: list[float] = field(default_factory=list)
    sign: list[float] = field(default_factory=list)
    server: list[float] = field(default_factory=list)
    sent: int = 0

    @property
    def client(self) -> float:
        """The median of all that one client does but train."""
        stages = [self.share, self.mask, self.unmask, self.sign or [0.0] * len(self.share)]
        return Timed(tuple(map(sum, zip(*stages, strict=True)))).median


def run(options: Namespace) -> Result:
    """`options.repetitions` rounds of `options.parameters` for each cohort. Each sum is checked."""
    table = Table(
        *("cohort", "neighbours", "sharing, ms", "masking, ms", "revealing, ms", "server, s", "bytes, 2NN to float32"),
        *("signing, ms", "revealing signed, ms", "client signed to unsigned"),
        title=f"secure aggregation of {options.parameters:,} parameters, {DROPOUTS:.0%} dropouts, one core",
    )
    small = sum(value.numel() for value in shared_state(MODELS["2NN"]()).values())
    rows: list[dict[str, Any]] = []
    points: list[Point] = []
    for neighbours, cohort in COHORTS:
        settings, costs, signed, sent = Settings(neighbours), Costs(), Costs(), Costs()
        for number in range(options.repetitions):
            one_round(cohort, settings, options.parameters, costs, seed=number)
            one_round(cohort, settings, options.parameters, signed, seed=number, identities=IDENTITIES[:cohort])
        one_round(cohort, settings, small, sent, seed=0)
        stages = {name: tuple(getattr(costs, name)) for name in ("share", "mask", "unmask", "server")}
        row = {"cohort": cohort, "neighbours": settings.degree(cohort), "bytes_ratio": sent.sent / (4 * small)}
        row["signed_ratio"] = signed.client / costs.client
        rows.append(row | stages | {"sign": tuple(signed.sign), "unmask_signed": tuple(signed.unmask)})
        points += [Point(f"{cohort}, {row['neighbours']}", name, values) for name, values in stages.items()]
        share, mask, unmask, server = (Timed(values) for values in stages.values())
        table.add_row(
            *(str(cohort), str(row["neighbours"]), share.text, mask.text, unmask.text, f"{server.median:.2f}"),
            f"{row['bytes_ratio']:.3f}",
            *(Timed(tuple(signed.sign)).text, Timed(tuple(signed.unmask)).text, f"{row['signed_ratio']:.3f}"),
        )
    return Result(rows, table, points, "seconds")


def one_round(
    cohort: int,
    settings: Settings,
    length: int,
    costs: Costs,
    *,
    seed: int,
    identities: Sequence[Identity] = (),
) -> None:
    """A whole round, whose sum is checked. The first clients' work is timed. `identities`: of clients that sign."""
    server = Collector(
        settings, run=RUN, server_round=1, model=MODEL, weights=dict.fromkeys(range(cohort), 1.0), length=length
    )
    secrets = {}
    for client in range(cohort):
        secrets[client], *keys = protocol.advertise(RUN, 1, client)
        start = time.process_time()
        signature = sign_keys(identities[client], RUN, 1, client, *keys) if identities else b""
        if identities and client < MEASURED:
            costs.sign.append(time.process_time() - start)
        server.add_keys(client, *keys, signature)
    costs.sent = content_bytes(pack_answers(HEADER, {0: key_answers(*keys, b"")}, {}))
    _share(server, secrets, costs)
    total = _mask(server, secrets, costs, seed)
    unmasked = _unmask(server, secrets, costs, identities)
    if not np.array_equal(unmasked.total, total):
        raise RuntimeError("the unmasked sum is not the plain one")


def _share(server: Collector, secrets: dict[int, Secrets], costs: Costs) -> None:
    view = server.close_keys()
    for client in secrets:
        start = time.process_time()
        secrets[client], shared = protocol.share(secrets[client], view)
        if client < MEASURED:
            costs.share.append(time.process_time() - start)
        server.add_shares(client, shared)
    costs.sent += content_bytes(pack_answers(HEADER, {0: shared_answers(shared)}, {}))


def _mask(server: Collector, secrets: dict[int, Secrets], costs: Costs, seed: int) -> NDArray[np.int64]:
    """The plain sum of the vectors that were masked."""
    random, settings = np.random.default_rng(seed), server.settings
    update = random.normal(0, 0.1, server.length).astype(np.float32)
    present, total = server.close_shares(), np.zeros(server.length, np.int64)
    for client in present[: len(present) - round(DROPOUTS * len(present))]:
        start = time.process_time()
        vector = quantise(update, 1.0, settings, random)
        secrets[client] = protocol.receive(secrets[client], server.view, present, server.sealed_for(client))
        masked = pack(protocol.apply_masks(secrets[client], server.view, vector), settings)
        if client < MEASURED:
            costs.mask.append(time.process_time() - start)
        total += vector
        server.add_masked([client], unpack(masked, settings, server.length))
    costs.sent += content_bytes(pack_masked_reply(HEADER, Reply((ClientReport(0),)), {WHOLE: torch.from_numpy(masked)}))
    return total


def _sign(
    server: Collector, secrets: dict[int, Secrets], costs: Costs, identities: Sequence[Identity], least: LeastSum
) -> None:
    """The fifth message, and the check of the others' keys that comes before."""
    peers = Peers({client: identity.public for client, identity in enumerate(identities)})
    for client in server.survivors:
        start = time.process_time()
        if client < MEASURED:
            check_signed_keys(server.view, peers)
        secrets[client] = agree(secrets[client], server.view, server.survivors, server.dropped, least)
        signature = sign_list(identities[client], server.view, client, secrets[client].agreed)
        if client < MEASURED:
            costs.sign[client - MEASURED] += time.process_time() - start
        server.add_signature(client, signature)


def _unmask(server: Collector, secrets: dict[int, Secrets], costs: Costs, identities: Sequence[Identity]) -> Unmasked:
    survivors, seconds, least = server.close_masked(), 0.0, LeastSum(2, signed=bool(identities))
    if identities:
        _sign(server, secrets, costs, identities, least)
    for client in survivors:
        start = time.process_time()
        revealed = unmask(secrets[client], server.view, survivors, server.dropped, server.signatures, least=least)
        middle = time.process_time()
        server.add_revealed(client, revealed)
        seconds += time.process_time() - middle
        if client < MEASURED:
            costs.unmask.append(middle - start)
    costs.sent += content_bytes(pack_answers(HEADER, {0: revealed_answers(revealed)}, {}))
    start = time.process_time()
    unmasked = server.unmask()
    costs.server.append(seconds + time.process_time() - start)
    return unmasked
