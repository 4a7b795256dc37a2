"""What sums through a helper cost: bytes and CPU seconds of a client, of the server and of the helper, for masks alone
and under each encryption."""

import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import RecordDict

from benchmarks.result import Point, Result, Table
from benchmarks.timing import Timed
from fedapp.aggregation.bfv.bfv_scheme import Bfv, joined, split
from fedapp.aggregation.bfv.parameters import TABLE, Parameters
from fedapp.aggregation.bfv.seal_worker import Ciphertexts
from fedapp.aggregation.encrypted.encrypted_integers import EncryptedIntegers
from fedapp.aggregation.helper.carrier import Bytes, Carrier
from fedapp.aggregation.helper.helper_messages import pack_masked_sum
from fedapp.aggregation.helper.masked_integers import MaskedIntegers
from fedapp.aggregation.helper.tags import Bound, fault_of, mask_key, new_seed, sealed_tag, unsealed
from fedapp.aggregation.paillier.paillier_scheme import Paillier
from fedapp.aggregation.whole_numbers.fixed_point import FixedPoint
from fedapp.aggregation.whole_numbers.quantise import quantise
from fedapp.common.device_keys import Identity, Peers
from fedapp.common.sealed_boxes import new_private, public_of
from fedapp.wire.records import content_bytes
from fedapp.wire.reply import ClientReport, Reply

COHORT, HEAD = 32, 10_000  # clients of a sum; parameters under Paillier
RUN, MODEL = "0123456789abcdef", "0" * 64
IDENTITY = Identity(ec.generate_private_key(ec.SECP384R1()))
STAGES = ("client", "read", "add", "helper_client", "decrypt")


class InThisProcess(Bfv):
    """BFV without the process that reads ciphertexts, whose time would not be this one's."""

    def opened(self, context: bytes, count: int) -> Ciphertexts:
        own = self.parameters
        return Ciphertexts(context, own.degree, own.modulus, own.primes, count, own.most_bytes)

    def decrypt(self, secret: bytes, public: bytes, carried: Bytes, slots: int) -> Any:
        count = slots // self.parameters.degree
        rows = self.opened(secret, count).decrypt([bytes(part) for part in split(carried, count)])
        return np.concatenate([np.frombuffer(row, np.int64) for row in rows]) % self.parameters.modulus


def run(options: Namespace) -> Result:
    """`options.repetitions` clients of `options.parameters` in each arm; each sum is checked."""
    cases: dict[str, tuple[FixedPoint, Callable[[FixedPoint], Carrier], int]] = {
        "helper, 22 bits": (FixedPoint(bits=22), MaskedIntegers, options.parameters),
        "bfv, 10 bits": (FixedPoint(bits=10, modulus_bits=64), lambda n: bfv(n, TABLE[0]), options.parameters),
        "bfv, 20 bits": (FixedPoint(bits=20, modulus_bits=64), lambda n: bfv(n, TABLE[0]), options.parameters),
        "paillier, 22 bits": (
            FixedPoint(bits=22, modulus_bits=64),
            lambda n: EncryptedIntegers(Paillier(), n, COHORT),
            min(HEAD, options.parameters),
        ),
    }
    table = Table(
        *("protocol", "parameters", "client, ms", "server reads, ms", "server adds, ms", "helper, ms a client"),
        *("helper decrypts, ms", "bytes to float32"),
        title=f"sums through a helper, lanes for cohorts of {COHORT}, CPU time of one core",
    )
    rows, points = list[dict[str, Any]](), list[Point]()
    for name, (numbers, make, length) in cases.items():
        found, sent = measured(make(numbers), numbers, length, max(2, options.repetitions))
        rows.append({"protocol": name, "parameters": length, "bytes_ratio": sent / (4 * length), **found})
        points += [Point(name, stage, values) for stage, values in found.items() if values]
        texts = [Timed(found[stage]).text if found[stage] else "" for stage in STAGES]
        table.add_row(name, str(length), *texts, f"{sent / (4 * length):.3f}")
    return Result(rows, table, points, "seconds")


def bfv(numbers: FixedPoint, parameters: Parameters) -> EncryptedIntegers:
    return EncryptedIntegers(InThisProcess(parameters), numbers, COHORT)


def measured(
    carrier: Carrier, numbers: FixedPoint, length: int, clients: int
) -> tuple[Mapping[str, tuple[float, ...]], int]:
    """By stage, CPU seconds of each client; and the bytes that one sends."""
    seconds: dict[str, list[float]] = {stage: [] for stage in STAGES}
    secret, public = carrier.run_keys()
    private = new_private()
    bound = Bound(RUN, 1, COHORT, MODEL, MODEL, MODEL, public_of(private))
    random = np.random.default_rng(0)
    update = random.normal(0, 0.1, length).astype(np.float32)
    total, sent, tags, carried = np.zeros(length, np.int64), 0, [], list[Bytes]()
    for client in range(clients):
        start = time.process_time()
        vector = quantise(update, 1.0, numbers, random)
        seed = new_seed()
        tag = sealed_tag(seed, bound, client, 1.0, 2, IDENTITY)
        carried.append(carrier.hide([(vector, [mask_key(seed, RUN, 1, MODEL, client)])], public, length))
        seconds["client"].append(time.process_time() - start)
        content: RecordDict = pack_masked_sum(Reply((ClientReport(client),)), carried[-1], {client: [tag]}, [bound.key])
        sent = content_bytes(content)
        total += vector
        tags.append(tag)
    added = _added(carrier, carried, public, length, seconds)
    peers = Peers(dict.fromkeys(range(clients), IDENTITY.public))
    keys = []
    for tag in tags:
        start = time.process_time()
        if fault_of(tag, bound, peers=peers) is not None or (seed := unsealed(tag, bound, private) or b"") == b"":
            raise RuntimeError("a tag is not its client's")
        keys.append(mask_key(seed, RUN, 1, MODEL, tag.client))
        if carrier.gives_masks:
            carrier.mask_sum(keys[-1:], length)
        seconds["helper_client"].append(time.process_time() - start)
    start = time.process_time()
    found = carrier.uncover(secret, public, added, keys, length, COHORT)
    if not carrier.gives_masks:
        seconds["decrypt"].append(time.process_time() - start)
    if not np.array_equal(found, total):
        raise RuntimeError("the sum is not the plain one")
    return {stage: tuple(values) for stage, values in seconds.items()}, sent


def _added(
    carrier: Carrier, carried: list[Bytes], public: bytes, length: int, seconds: dict[str, list[float]]
) -> Bytes:
    """As the server has it; reading of ciphertexts apart, where there are any that must be read."""
    scheme = getattr(carrier, "scheme", None)
    if not isinstance(scheme, InThisProcess):
        adder = carrier.adder(public, length)
        for one in carried:
            start = time.process_time()
            adder.add(one)
            seconds["add"].append(time.process_time() - start)
        return adder.total()
    count = int.from_bytes(carried[0][:4].tobytes(), "big")
    sums = scheme.opened(public, count)
    total: list[Any] = []
    for one in carried:
        start = time.process_time()
        loaded = sums._loaded([bytes(part) for part in split(one, count)])
        seconds["read"].append(time.process_time() - start)
        start = time.process_time()
        total = [first.add(second) for first, second in zip(total, loaded, strict=True)] if total else loaded
        if len(seconds["read"]) > 1:
            seconds["add"].append(time.process_time() - start)
    return joined([vector.serialize() for vector in total])
