"""Shares, masks, rounding and packing, each by itself."""

import os
from itertools import combinations

import numpy as np
import pytest
from Crypto.Protocol.SecretSharing import Shamir
from hypothesis import given, settings
from hypothesis import strategies as st

from fedapp.aggregation.secaggplus.keys import KeyPair, commitment, derive, new_seed, open_sealed, seal
from fedapp.aggregation.secaggplus.settings import Settings
from fedapp.aggregation.secaggplus.shamir import combine, split
from fedapp.aggregation.whole_numbers.masks import BLOCK, add_mask
from fedapp.aggregation.whole_numbers.metrics import decode, encode
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.aggregation.whole_numbers.quantise import MOST_CLIPPED, fit, pack, quantise, signed, unpack
from fedapp.common.errors import ConfigError


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=16, max_size=16), st.integers(1, 12), st.integers(0, 20), st.randoms())
def test_any_threshold_of_shares_gives_what_the_library_gives(secret: bytes, t: int, more: int, random: object) -> None:
    shares = dict(enumerate(split(secret, t, t + more), start=1))
    chosen = random.sample(sorted(shares), t)  # type: ignore[attr-defined]
    given_shares = {number: shares[number] for number in chosen}
    assert combine(given_shares) == secret == Shamir.combine(list(given_shares.items()))


def test_fewer_shares_give_something_else() -> None:
    secret = os.urandom(16)
    shares = dict(enumerate(split(secret, 3, 5), start=1))
    for pair in combinations(shares, 2):
        assert combine({number: shares[number] for number in pair}) != secret


def test_two_agree_and_nobody_else_and_for_one_purpose_only() -> None:
    first, second, third = (KeyPair(new_seed()) for _ in range(3))
    shared = first.agree(second.public, b"round 1", "mask", 1, 2)
    assert shared == second.agree(first.public, b"round 1", "mask", 1, 2)
    assert shared not in (
        third.agree(second.public, b"round 1", "mask", 1, 2),
        first.agree(second.public, b"round 2", "mask", 1, 2),
        first.agree(second.public, b"round 1", "mask", 12),
    )


def test_the_same_seed_gives_the_same_keys() -> None:
    seed = new_seed()
    assert KeyPair(seed).public == KeyPair(seed).public != KeyPair(new_seed()).public
    assert new_seed() != seed
    assert commitment(seed, 1) == commitment(seed, 1) != commitment(seed, 2)
    assert derive(seed, "a", "bc") != derive(seed, "ab", "c")


@pytest.mark.parametrize("key", [b"", bytes(33), b"\x02" + bytes(31), b"\x05" + bytes(32)])
def test_what_is_no_public_key_is_refused(key: bytes) -> None:
    with pytest.raises(ProtocolError, match="forged"):
        KeyPair(new_seed()).agree(key, "mask")


def test_what_was_changed_does_not_open() -> None:
    key, content = new_seed(), os.urandom(40)
    sealed = seal(key, content)
    assert open_sealed(key, sealed) == content
    assert open_sealed(new_seed(), sealed) is None
    assert open_sealed(key, sealed[:-4]) is None
    assert open_sealed(key, b"") is None
    changed = bytearray(sealed)
    changed[30] ^= 1
    assert open_sealed(key, bytes(changed)) is None


@pytest.mark.parametrize("dtype", ["<u4", "<u8"])
@pytest.mark.parametrize("length", [0, 1, 1000, BLOCK, BLOCK + 7])
def test_a_mask_added_and_taken_away_leaves_nothing(dtype: str, length: int) -> None:
    key = new_seed()
    before = np.arange(length).astype(dtype)
    vector = before.copy()
    add_mask(vector, key)
    assert length < 1000 or np.mean(vector == before) < 0.01
    add_mask(vector, key, negative=True)
    assert np.array_equal(vector, before)


def test_blocks_of_a_mask_are_one_stream() -> None:
    """AES-128-CTR from counter zero, as any other implementation has it."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    key, vector = new_seed(), np.zeros(2 * BLOCK + 5, "<u4")
    add_mask(vector, key)
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    assert vector.tobytes() == stream.update(bytes(vector.nbytes))


@settings(max_examples=50, deadline=None)
@given(st.sampled_from([16, 24, 32, 40, 48, 56, 64]), st.data())
def test_whole_numbers_survive_modulus_and_packing(bits: int, data: st.DataObject) -> None:
    setting = Settings(modulus_bits=bits)
    half = 2 ** (bits - 1)
    values = np.array(data.draw(st.lists(st.integers(-half, half - 1), max_size=20)), np.int64)
    packed = pack(values.astype(setting.dtype), setting)
    assert packed.nbytes == len(values) * bits // 8
    assert np.array_equal(signed(unpack(packed, setting, len(values)), setting), values)


@pytest.mark.parametrize("packed", [np.zeros(7, np.uint8), np.zeros(8, np.int8), np.zeros((2, 4), np.uint8)])
def test_a_truncated_vector_is_refused(packed: np.ndarray) -> None:
    with pytest.raises(ProtocolError, match="truncated"):
        unpack(packed, Settings(modulus_bits=32), 2)


def test_rounding_is_unbiased_and_to_a_neighbour() -> None:
    """The mean of 200,000 roundings, whose standard error is below 0.5 / sqrt(200,000); fails by chance: 1 in 10^9."""
    setting = Settings(clip=4.0, bits=3)  # one unit is 1.0
    random, number = np.random.default_rng(0), 200_000
    for value in (0.0, 0.3, -0.3, 1.75, -2.5):
        found = quantise(np.full(number, value, np.float32), 1.0, setting, random)
        assert set(np.unique(found)) <= {np.floor(value), np.ceil(value)}
        assert abs(found.mean() - value) <= 6.2 * 0.5 / np.sqrt(number)


def test_values_are_clipped_and_weighted_and_their_sum_cannot_wrap() -> None:
    setting = Settings(clip=2.0, bits=9, modulus_bits=16)
    random, values = np.random.default_rng(0), np.array([1e30, -1e30, 1.0], np.float32)
    assert quantise(values, 1.0, setting, random).tolist() == [256, -256, 128]
    assert quantise(values, 0.5, setting, random).tolist() == [128, -128, 64]
    cohort = 127
    setting.check(cohort)
    worst = quantise(np.full(1000, 1e30), 1.0, setting, random) + 1
    assert int(worst.max()) * cohort <= setting.largest_sum(cohort) < 2**15


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 400), st.floats(-12, 6), st.integers(0, 2**32 - 1))
def test_no_clip_makes_an_update_a_list_of_signs(length: int, power: float, seed: int) -> None:
    """However small the server sets `clip`: at most one entry in a hundred is cut, and all is scaled alike."""
    clip, values = 10.0**power, np.random.default_rng(seed).standard_cauchy(length)
    found, beyond = fit(values, clip)
    assert beyond == np.mean(np.abs(values) > clip)
    assert np.mean(np.abs(found) > clip * (1 + 1e-12)) <= MOST_CLIPPED
    scales = found / values
    assert np.allclose(scales, scales[0], rtol=1e-9)
    assert (scales[0] < 1) == (beyond > MOST_CLIPPED)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_never_sent(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        quantise(np.array([0.0, value]), 1.0, Settings(), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("setting", "cohort", "words"),
    [
        (Settings(threshold=12, neighbours=10), 100, "10 + 1 = 11"),
        (Settings(threshold=6), 5, "cohort of 5"),
        (Settings(neighbours=7), 100, "even"),
        (Settings(neighbours=0), 100, "even"),
        (Settings(), 1, "cohort of 1"),
        (Settings(bits=24, modulus_bits=32), 300, "300 x 1 x (2^23 + 1) = 2516582700"),
        (Settings(bits=24, modulus_bits=32), 300, "secure_aggregation.bits=23"),
        (Settings(bits=32, modulus_bits=16), 2, "2^15 = 32768"),
    ],
)
def test_what_cannot_work_is_refused_with_the_arithmetic(setting: Settings, cohort: int, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        setting.check(cohort)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("cohort", "setting", "needed"),
    [(2, Settings(), 2), (3, Settings(), 2), (10, Settings(), 7), (100, Settings(neighbours=32), 22)],
)
def test_two_thirds_of_the_holders_are_needed_by_default(cohort: int, setting: Settings, needed: int) -> None:
    setting.check(cohort)
    assert setting.needed(cohort) == needed


@pytest.mark.parametrize(
    ("entries", "mean"),
    [
        ((0.4, 0.5, 0.0), 0.8),
        ((0.5 + 1e-4, 0.5, 0.0), 1.0),  # rounding
        ((0.9, 0.5, 0.0), None),  # above 1
        ((-0.1, 0.5, 0.0), None),  # below 0
        ((0.9, 1.0, 0.0), None),  # more clients than there are
        ((0.0, 0.4, 0.4), None),
        ((0.0, -0.1, 0.0), None),
        ((0.3, 0.4, -0.1), None),
        ((0.5, 0.0, 0.0), None),  # a value of nobody
    ],
)
def test_a_mean_that_no_values_can_give_is_none_and_named(entries: tuple[float, ...], mean: float | None) -> None:
    setting, largest = Settings(clip=0.5), {"val_accuracy": 1.0, "val_loss": 64.0}
    found = decode([*entries, -0.1, 0.5, 0.0], largest, setting, rounding=1e-3, lowest={"val_accuracy": 0.0})
    assert found.means == {"val_accuracy": mean, "val_loss": pytest.approx(-12.8)}
    assert found.impossible == (("val_accuracy",) if mean is None else ())


def test_the_largest_cohort_that_is_let_through_cannot_wrap() -> None:
    for bits, modulus in ((8, 16), (22, 32), (20, 24)):
        setting = Settings(bits=bits, modulus_bits=modulus)
        cohort = next(n for n in range(2, 10_000) if setting.largest_sum(n) >= 2 ** (modulus - 1))
        setting.check(cohort - 1) if cohort > 2 else None
        with pytest.raises(ConfigError, match="too small"):
            setting.check(cohort)


@pytest.mark.parametrize(
    ("values", "mean", "beyond"),
    [
        ([2.0, 4.0], 3.0, 0.0),
        ([2.0, None], 2.0, 0.0),  # one has no validation split
        ([2.0, float("nan")], 2.0, 0.0),  # or the metric is not defined there
        ([2.0, 65.0], 2.0, 0.5),
        ([float("inf"), 1e9], None, 1.0),
        ([None, None], None, 0.0),
    ],
)
def test_means_of_metrics_and_who_is_not_in_them(values: list[float | None], mean: float | None, beyond: float) -> None:
    setting, largest = Settings(clip=0.5), {"clipped": 1.0, "val_loss": 64.0}
    rows = [encode({"val_loss": value, "clipped": 0.25}, largest, setting) for value in values]
    found = decode(np.mean(rows, axis=0), largest, setting)
    assert found.means == {"clipped": pytest.approx(0.25), "val_loss": mean if mean is None else pytest.approx(mean)}
    assert found.beyond == ({"val_loss": pytest.approx(beyond)} if beyond else {})
