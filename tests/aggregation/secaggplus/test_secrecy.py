"""What the server gets to see before it unmasks a sum looks like nothing but noise."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2
from secure_rounds import Played, play

from fedapp.aggregation.secaggplus.member import apply_masks
from fedapp.aggregation.secaggplus.settings import Settings

LENGTH = 40_000
# A test of one vector looks at each of its 4 bytes, and at those of the differences from value to value. By chance a
# uniform vector fails one of those 8 with a probability below FALSE_ALARM, and any of some 80 here below 1 in 10^5.
FALSE_ALARM = 1e-7
WEAK = Settings(threshold=2, bits=12)


def looks_uniform(vector: NDArray[np.uint32]) -> bool:
    """Pearson's chi-squared test on every byte of the values, and on every byte of the differences of neighbours."""
    rows = [vector, vector[1:] - vector[:-1]]
    for values in rows:
        columns = np.ascontiguousarray(values).view(np.uint8).reshape(-1, 4)
        for column in columns.T:
            counts = np.bincount(column, minlength=256)
            expected = len(column) / 256
            statistic = float(((counts - expected) ** 2 / expected).sum())
            tail = min(chi2.sf(statistic, 255), chi2.cdf(statistic, 255))
            if tail < FALSE_ALARM / 16:
                return False
    return True


@pytest.fixture(scope="module")
def masked() -> Played:
    return play(5, WEAK, length=LENGTH, upto="masked")


def test_the_test_itself_knows_what_is_not_uniform(masked: Played) -> None:
    plain = masked.vectors[0].astype(np.uint32)
    assert not looks_uniform(plain)
    assert not looks_uniform(np.zeros(LENGTH, np.uint32))
    assert not looks_uniform(np.arange(LENGTH, dtype=np.uint32))
    key_stream = np.random.default_rng(0).integers(0, 2**32, LENGTH, np.uint32)
    assert looks_uniform(key_stream)
    assert not looks_uniform(key_stream & np.uint32(0xFFFFFFFE))  # one bit of 32 is always zero


def test_a_masked_vector_alone_looks_uniform(masked: Played) -> None:
    for client, vector in masked.masked.items():
        assert looks_uniform(vector), client
        assert looks_uniform(vector - masked.vectors[client].astype(np.uint32)), client


def test_the_sum_over_any_part_of_the_cohort_looks_uniform_and_even_over_all_before_it_is_unmasked(
    masked: Played,
) -> None:
    for size in range(1, 6):
        for part in combinations(masked.masked, size):
            total = sum((masked.masked[client] for client in part), np.zeros(LENGTH, np.uint32))
            assert looks_uniform(total), part


def test_the_sum_over_any_proper_part_looks_uniform_to_who_knows_every_self_mask(masked: Played) -> None:
    """As a server does that was given the seeds of all survivors: the masks between clients must hide the rest."""
    bare = {}
    for client, secrets in masked.secrets.items():
        # Where no other client is present, what is added is the self-mask.
        alone = replace(secrets, present=(client,))
        bare[client] = masked.masked[client] - apply_masks(alone, masked.view, np.zeros(LENGTH, np.int64))
    for size in range(1, 5):
        for part in combinations(bare, size):
            assert looks_uniform(sum((bare[client] for client in part), np.zeros(LENGTH, np.uint32))), part
    everyone = sum(bare.values(), np.zeros(LENGTH, np.uint32))
    assert np.array_equal(everyone, masked.plain(range(5)).astype(np.uint32))


def test_the_same_update_is_masked_otherwise_in_every_round() -> None:
    first, second = (play(3, WEAK, length=LENGTH, upto="masked", server_round=number) for number in (1, 2))
    for client in range(3):
        assert np.array_equal(first.vectors[client], second.vectors[client])
        difference = first.masked[client] - second.masked[client]
        assert np.mean(difference == 0) < 0.001
        assert looks_uniform(difference)


def test_nothing_of_the_secrets_is_in_what_is_sent() -> None:
    played = play(4, WEAK, upto="shares")
    sent = b"".join(member.cipher_key + member.mask_key for member in played.view.members)
    for shared in played.server._shared.values():
        sent += shared.seed + b"".join(shared.sealed.values()) + b"".join(a + b for a, b in shared.shares.values())
    for secrets in played.secrets.values():
        for secret in (secrets.cipher_seed, secrets.mask_seed, secrets.self_seed, *secrets.held[secrets.client]):
            assert secret not in sent
