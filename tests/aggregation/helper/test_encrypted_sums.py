"""Sums under homomorphic encryption: exact within the noise budget, and no decryption of what a server chooses."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helper_rounds import NUMBERS, Client, Played, plain
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from in_process import InProcessGrid, run_in_process, run_on
from secure_rounds import play
from secure_runs import SMALL, lines, summary

from fedapp.aggregation.bfv import process
from fedapp.aggregation.bfv.bfv_scheme import Bfv, joined, split, uniform
from fedapp.aggregation.bfv.option import BfvSum
from fedapp.aggregation.bfv.parameters import TABLE, Parameters
from fedapp.aggregation.encrypted.additive_scheme import AdditiveScheme
from fedapp.aggregation.encrypted.encrypted_integers import EncryptedIntegers
from fedapp.aggregation.helper.carrier import Bytes, Carrier
from fedapp.aggregation.helper.masked_integers import MaskedIntegers
from fedapp.aggregation.helper.tags import new_seed
from fedapp.aggregation.paillier.paillier_scheme import Paillier
from fedapp.aggregation.protocol import protocol_of
from fedapp.aggregation.secaggplus.settings import Settings
from fedapp.aggregation.whole_numbers.fixed_point import FixedPoint
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.common.errors import ConfigError
from fedapp.config import compose
from fedapp.learning.build import build_parts

SMALL_KEY = Paillier(512)  # as large ones work, in a hundredth of the time
SCHEMES: dict[str, AdditiveScheme] = {"bfv": Bfv(TABLE[0]), "paillier": SMALL_KEY}


def carrier_of(name: str, cohort: int = 8, numbers: FixedPoint = NUMBERS) -> EncryptedIntegers:
    return EncryptedIntegers(SCHEMES[name], numbers, cohort)


@pytest.fixture(params=list(SCHEMES))
def played(request: pytest.FixtureRequest, tmp_path: Path) -> Played:
    return Played(carrier_of(request.param), folder=tmp_path / "keep")


# --- exact sums ---------------------------------------------------------------------------------------------------


def summed(carrier: Carrier, vectors: list[np.ndarray], left: list[int], cohort: int) -> np.ndarray:  # type: ignore[type-arg]
    """What is laid bare of the clients that are `left`, whose carried vectors come in that order."""
    secret, public = carrier.run_keys()
    length, keys = len(vectors[0]), [new_seed()[:16] for _ in vectors]
    adder = carrier.adder(public, length)
    try:
        for client in left:
            adder.add(carrier.hide([(vectors[client], [keys[client]])], public, length))
        total = adder.total()
    finally:
        adder.close()
    own = [keys[client] for client in left]
    return carrier.uncover(secret, public, total, own, length, cohort)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_all_protocols_give_the_same_sum(data: st.DataObject) -> None:
    """Cohorts of 1 to 256, any dropouts, any order."""
    cohort = data.draw(st.sampled_from([1, 2, 3, 17, 64, 256]))
    left = data.draw(st.permutations(range(cohort)))[: data.draw(st.integers(1, cohort))]
    random = np.random.default_rng(cohort)
    most = 2 ** (NUMBERS.bits - 1)
    vectors = [random.integers(-most, most + 1, 5) for _ in range(cohort)]
    expected = np.sum([vectors[client] for client in left], axis=0)
    carriers: list[Carrier] = [MaskedIntegers(NUMBERS)]
    if cohort <= 17:  # encrypting takes milliseconds each
        carriers += [carrier_of(name, 256) for name in SCHEMES]
    for carrier in carriers:
        assert np.array_equal(summed(carrier, vectors, left, cohort), expected), carrier


@pytest.mark.parametrize("gone", [(), (1, 4)])
def test_secaggplus_gives_it_too(gone: tuple[int, ...]) -> None:
    round_ = play(8, Settings(bits=12, threshold=3), gone=((), (), gone, ()), length=50)
    left = [client for client in range(8) if client not in gone]
    theirs = round_.server.unmask().total
    vectors = [round_.vectors[client] for client in range(8)]
    for carrier in (MaskedIntegers(NUMBERS), *(carrier_of(name) for name in SCHEMES)):
        assert np.array_equal(summed(carrier, vectors, left, 8), theirs)


def test_the_largest_cohort_leaves_noise_budget_and_its_values_are_exact() -> None:
    """The worst values of as many clients as the arithmetic allows."""
    own = TABLE[0]
    numbers, most = FixedPoint(bits=10, modulus_bits=64), 2**9
    carrier = EncryptedIntegers(Bfv(own), numbers, own.most_clients)
    secret, public = carrier.run_keys()
    keys = [new_seed()[:16] for _ in range(own.most_clients)]
    vector = np.array([most, -most, most], np.int64)
    adder = carrier.adder(public, 3)
    try:
        for key in keys:
            adder.add(carrier.hide([(vector, [key])], public, 3))
        total = adder.total()
    finally:
        adder.close()
    assert Bfv(own).noise_budget(secret, total, own.degree) >= 5
    found = carrier.uncover(secret, public, total, keys, 3, own.most_clients)
    assert found.tolist() == (vector * own.most_clients).tolist()


def test_parameters_are_those_of_the_standard() -> None:
    most_bits = {4096: 109, 8192: 218}  # Homomorphic Encryption Standard, 128 bits, ternary secrets
    for row in TABLE:
        assert sum(row.primes) <= most_bits[row.degree]
        assert (row.modulus - 1) % (2 * row.degree) == 0
    assert TABLE[0].most_clients == 511


def test_one_client_more_than_the_noise_allows_takes_other_parameters_or_is_refused() -> None:
    def parameters(*overrides: str) -> Parameters:
        option = protocol_of(compose(["secure_aggregation=bfv", *overrides]))
        assert isinstance(option, BfvSum)
        scheme = option.carrier(option.numbers).scheme
        assert isinstance(scheme, Bfv)
        return scheme.parameters

    assert parameters("secure_aggregation.max_cohort=511").degree == 4096
    assert parameters("secure_aggregation.max_cohort=512").degree == 8192
    with pytest.raises(ConfigError, match=r"do not fit \(degree 4096: 511 clients by the noise"):
        parameters("secure_aggregation.max_cohort=300000000", "secure_aggregation.bits=32")
    config = compose(["secure_aggregation=bfv"])
    protocol, parts = protocol_of(config), build_parts(config)
    protocol.check_cohort(config, parts, 32, 32, 40)
    with pytest.raises(ConfigError, match="max_cohort=32: a cohort of 33 is larger; set it to 33"):
        protocol.check_cohort(config, parts, 33, 33, 40)


@pytest.mark.parametrize("largest", [1, 100, 16416, 2**31])
@pytest.mark.parametrize("name", list(SCHEMES))
def test_lanes_hold_every_sum(name: str, largest: int) -> None:
    scheme = SCHEMES[name]
    public = scheme.new_keys()[1]
    lanes, modulus = scheme.lanes(largest), scheme.modulus(public)
    values = np.resize(np.array([largest, -largest, 0, 1, -1, -largest, largest]), 4 * lanes.count)
    assert np.array_equal(scheme.unpack(scheme.pack(values, lanes) % modulus, lanes, modulus), values)


def test_masks_are_uniform_modulo_the_scheme_s() -> None:
    found = uniform(b"k" * 16, 200_000, 8589852673)
    assert found.min() >= 0
    assert found.max() < 8589852673
    assert np.allclose(np.histogram(found, 8, (0, 8589852673))[0], 25_000, rtol=0.03)
    assert not np.array_equal(found, uniform(b"l" * 16, 200_000, 8589852673))


# --- a server that lies -------------------------------------------------------------------------------------------


def tags(clients: list[Client]) -> list:  # type: ignore[type-arg]
    return [client.tag for client in clients]


def test_the_server_learns_the_sum(played: Played) -> None:
    clients = [played.client(number) for number in range(3)]
    assert np.array_equal(played.sum(clients), plain(clients))


CHOSEN: dict[str, Callable[[Played, list[Client]], Bytes]] = {
    "one client's alone": lambda played, clients: clients[0].carried,
    "a part of the sum": lambda played, clients: played.added(clients[:2]),
    "the sum twice": lambda played, clients: played.added([*clients, *clients]),
    "one client's and another of its own": lambda played, clients: played.added([*clients, played.client(5)]),
    "one that it made itself": lambda played, clients: played.client(6).carried,
    "that of another model": lambda played, clients: played.added(
        [played.client(number, model="n" * 64) for number in range(3)]
    ),
}


@pytest.mark.parametrize("choice", list(CHOSEN))
def test_nothing_but_the_sum_of_the_tagged_is_decrypted(played: Played, choice: str) -> None:
    clients = [played.client(number) for number in range(3)]
    with pytest.raises(ProtocolError, match="what was decrypted is no sum of these clients"):
        played.ask(tags(clients), CHOSEN[choice](played, clients))
    with pytest.raises(ProtocolError, match="repetition"):  # the failed attempt was the one that they had
        played.ask(tags(clients), played.added(clients))


def test_what_is_out_of_range_is_refused(played: Played) -> None:
    """A helper gives no sum that no cohort can have: one bit is all that is told of it."""
    clients = [played.client(number) for number in range(3)]
    clients[0].vector = np.full(played.length, 8 * 2**11 + 9)
    key = [new_seed()[:16]]
    clients[0].carried = played.carrier.hide([(clients[0].vector, key)], played.keys.public, played.length)
    with pytest.raises(ProtocolError, match="no sum of these clients"):
        played.ask(tags(clients), played.added(clients))


def test_trial_decryption_with_all_that_the_server_holds_fails(played: Played) -> None:
    """It has public keys, ciphertexts, tags with sealed seeds, and a key pair of its own."""
    clients = [played.client(number) for number in range(3)]
    carrier, length = played.carrier, played.length
    assert isinstance(carrier, EncryptedIntegers)
    secret, public = carrier.run_keys()
    for guess in (secret, played.keys.public, clients[0].tag.sealed):
        try:
            found = carrier.scheme.decrypt(guess, public, clients[0].carried, carrier._slots(length))
        except Exception:  # the library's, for what is no key
            continue
        values = carrier.scheme.unpack(found, carrier._lanes, carrier.scheme.modulus(public))
        assert not np.array_equal(values[:length], clients[0].vector)
    seeds = [client.seed for client in clients]
    sent = b"".join([*(c.carried.tobytes() + c.tag.sealed + c.tag.signature for c in clients), played.keys.public])
    assert not any(seed in sent for seed in seeds)


# --- bad input ----------------------------------------------------------------------------------------------------


BAD: dict[str, Callable[[Played, Bytes], Bytes]] = {
    "truncated": lambda _, good: good[:-10],
    "oversized": lambda _, good: np.concatenate([good, good]),
    "nothing": lambda _, good: good[:0],
    "zeros": lambda _, good: np.zeros_like(good),
    "noise": lambda _, good: np.frombuffer(np.random.default_rng(0).bytes(len(good)), np.uint8),
}


@pytest.mark.parametrize("kind", list(BAD))
def test_a_bad_ciphertext_is_refused_and_adds_nothing(played: Played, kind: str) -> None:
    if kind == "noise" and played.carrier == carrier_of("paillier"):
        pytest.skip("nearly every number is a ciphertext of Paillier's: of a random value, which is out of range")
    clients = [played.client(number) for number in range(2)]
    adder = played.carrier.adder(played.keys.public, played.length)
    try:
        adder.add(clients[0].carried)
        with pytest.raises(ProtocolError):
            adder.add(BAD[kind](played, clients[1].carried))
        adder.add(clients[1].carried)
        total = adder.total()
    finally:
        adder.close()
    found = played.ask(tags(clients), total)["total"]
    assert np.array_equal(found, plain(clients))


def test_other_parameters_and_transparent_ciphertexts_are_refused() -> None:
    import tenseal

    own = Played(carrier_of("bfv"))
    other = EncryptedIntegers(Bfv(TABLE[1]), NUMBERS, 8)
    public = other.run_keys()[1]
    foreign = other.hide([(np.zeros(own.length, np.int64), [bytes(16)])], public, own.length)
    adder = own.carrier.adder(own.keys.public, own.length)
    try:
        with pytest.raises(ProtocolError, match=r"malformed, or of other parameters|may have"):
            adder.add(foreign)
        with pytest.raises(ProtocolError, match="may have"):
            adder.add(joined([bytes(1 << 20)]))
        with pytest.raises(ProtocolError, match="truncated"):
            adder.add(joined([b"x", b"y"]))
    finally:
        adder.close()
    with pytest.raises(ProtocolError, match=r"forged: the helper's key: a context of degree 4096"):
        other.check_public(own.keys.public)
    with pytest.raises(ProtocolError, match="no context of BFV"):
        own.carrier.adder(b"no context", own.length)
    large = own.keys.public + bytes(1 << 20)
    for read in (own.carrier.check_public, lambda public: own.carrier.adder(public, own.length)):
        with pytest.raises(ProtocolError, match=r"a context of \d+ bytes, \d+ at most"):
            read(large)
    assert tenseal is not None


def lower_level(public: bytes, carried: Bytes, parameters: Parameters, path: Path) -> Bytes:
    """The same ciphertext, switched to a smaller modulus, as any sender can make it."""
    import tenseal
    import tenseal.sealapi

    (content,) = split(carried, 1)
    context = tenseal.context_from(public)
    (inner,) = tenseal.bfv_vector_from(context, bytes(content)).ciphertext()
    tenseal.sealapi.Evaluator(context.seal_context().data).mod_switch_to_next_inplace(inner)
    inner.save(str(path))

    def varint(number: int) -> bytes:
        return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)

    size, seal = varint(parameters.degree), path.read_bytes()
    return joined([b"\x0a" + varint(len(size)) + size + b"\x12" + varint(len(seal)) + seal])


@pytest.mark.parametrize("first", [True, False], ids=["first", "second"])
def test_a_ciphertext_at_a_lower_level_is_refused_in_any_order(tmp_path: Path, first: bool) -> None:
    carrier = EncryptedIntegers(Bfv(TABLE[1]), NUMBERS, 8)
    secret, public = carrier.run_keys()
    keys, vector = [new_seed()[:16] for _ in range(2)], np.arange(40, dtype=np.int64)
    good, other = (carrier.hide([(vector, [key])], public, 40) for key in keys)
    low = lower_level(public, other, TABLE[1], tmp_path / "seal")
    adder = carrier.adder(public, 40)
    try:
        if not first:
            adder.add(good)
        with pytest.raises(ProtocolError, match="another form"):
            adder.add(low)
        if first:
            adder.add(good)
        adder.add(other)
        total = adder.total()
    finally:
        adder.close()
    assert np.array_equal(carrier.uncover(secret, public, total, keys, 40, 2), 2 * vector)
    with pytest.raises(ProtocolError, match="another form"):
        carrier.uncover(secret, public, low, keys, 40, 2)


def test_an_encryption_that_anybody_reads_is_refused_under_paillier() -> None:
    own = Played(carrier_of("paillier"))
    modulus = SMALL_KEY.modulus(own.keys.public)
    slots = own.carrier._slots(own.length)  # type: ignore[attr-defined]
    open_to_all = b"".join(((1 + 5 * modulus) % modulus**2).to_bytes(128, "big") for _ in range(slots))
    adder = own.carrier.adder(own.keys.public, own.length)
    with pytest.raises(ProtocolError, match="can be read without it"):
        adder.add(np.frombuffer(open_to_all, np.uint8))
    for bad in (own.keys.public[:-1], bytes(64), own.keys.public[:-1] + b"\0"):
        with pytest.raises(ProtocolError, match="no Paillier key of 512 bits"):
            own.carrier.check_public(bad)


def test_a_process_that_crashes_costs_the_sum_and_not_the_program() -> None:
    own = Played(carrier_of("bfv"))
    adder = own.carrier.adder(own.keys.public, own.length)
    client = own.client(0)
    adder.add(client.carried)
    adder._process._process.kill()  # type: ignore[attr-defined]
    with pytest.raises(ProtocolError, match="crashed: the process that reads ciphertexts has ended"):
        adder.add(client.carried)
    adder.close()
    assert process.PATIENCE > 0


def test_pieces_of_a_vector_are_counted_before_they_are_read() -> None:
    good = joined([b"ab", b"c"])
    assert [bytes(part) for part in split(good, 2)] == [b"ab", b"c"]
    for bad, count in ((good, 1), (good[:-1], 2), (good[:3], 2)):
        with pytest.raises(ProtocolError, match="truncated"):
            split(bad, count)


# --- whole runs ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    overrides = SMALL.replace("secaggplus", "helper") + " secure_aggregation.bits=20"
    return run_in_process(tmp_path_factory.mktemp("masked") / "run", overrides, 3)


@pytest.mark.parametrize("name", ["bfv", "paillier"])
def test_a_run_computes_what_masks_alone_compute(masked: Path, tmp_path: Path, name: str) -> None:
    overrides = SMALL.replace("secaggplus", name) + " secure_aggregation.bits=20"
    grid = InProcessGrid(overrides, 3)
    found = run_on(grid, tmp_path / "run", overrides)
    assert summary(found)["model_sha256"] == summary(masked)["model_sha256"]
    assert lines(found, "metrics.jsonl")[-1]["val_accuracy"] == lines(masked, "metrics.jsonl")[-1]["val_accuracy"]


def test_a_client_with_a_bad_ciphertext_is_named_and_the_others_are_summed(tmp_path: Path) -> None:
    overrides = SMALL.replace("secaggplus", "bfv").replace("num_rounds=2", "num_rounds=1")

    def tamper(reply):  # type: ignore[no-untyped-def]
        if reply.metadata.src_node_id == 101 and not reply.has_error() and "tags-1" in reply.content.config_records:
            array = reply.content.array_records["arrays"]["carried"]
            array.data = array.data[:-1000] + bytes(1000)
        return reply

    found = run_in_process(tmp_path / "run", overrides, 7, tamper=tamper)
    rejected = {row["client"]: row["rejected"] for row in lines(found, "clients.jsonl") if row["rejected"]}
    assert list(rejected) == [1]
    assert "ciphertext" in rejected[1]
    assert lines(found, "metrics.jsonl")[-1]["replied"] == 5


def test_sealed_models_go_with_encryption(tmp_path: Path, masked: Path) -> None:
    overrides = SMALL.replace("secaggplus", "bfv") + " secure_aggregation.sum_to=clients federation.deliver=true"
    found = run_in_process(tmp_path / "run", overrides, 3)
    assert summary(found)["status"] == "finished"
    assert lines(found, "metrics.jsonl")[-1]["val_accuracy"] == lines(masked, "metrics.jsonl")[-1]["val_accuracy"]


def test_a_large_model_is_refused_under_paillier() -> None:
    from fedapp.learning.build import build_parts

    config = compose(["secure_aggregation=paillier", "model=mlp", "model.hidden=[4000]"])
    with pytest.raises(ConfigError, match="would take minutes a client"):
        protocol_of(config).conflicts(config, build_parts(config))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in (("bfv", "fedapp.aggregation.bfv.option"), ("paillier", "fedapp.aggregation.paillier.option")):
        monkeypatch.setattr(f"{module}.find_spec", lambda _: None)
        config = compose([f"secure_aggregation={name}"])
        parts = build_parts(config)
        with pytest.raises(ConfigError, match="needs the package"):
            protocol_of(config).check_cohort(config, parts, 3, 3, 3)
