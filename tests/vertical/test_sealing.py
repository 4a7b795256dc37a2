"""Sealed payloads open for their receiver alone; masks cancel in the sum, and hide each summand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedapp.vertical.masking import RESOLUTION, decoded, encoded, masked
from fedapp.vertical.party_error import PartyError
from fedapp.vertical.sealing import OVERHEAD, agree, new_private, open_sealed, public_of, seal

VIEW = b"v" * 32


def channels(names: list[str]) -> dict[str, dict[str, bytes]]:
    keys = {name: new_private() for name in names}
    return {
        me: {other: agree(keys[me], public_of(keys[other]), VIEW) for other in names if other != me} for me in names
    }


def test_sealed_for_one_purpose_and_number() -> None:
    both = channels(["a", "b"])
    assert both["a"]["b"] == both["b"]["a"]
    sealed = seal(both["a"]["b"], "a", "b", "gradient", 7, b"content")
    assert len(sealed) == len(b"content") + OVERHEAD
    assert open_sealed(both["b"]["a"], "a", "b", "gradient", 7, sealed) == b"content"
    for sender, receiver, purpose, number in (
        ("b", "a", "gradient", 7),
        ("a", "b", "embedding", 7),
        ("a", "b", "gradient", 8),
    ):
        with pytest.raises(PartyError, match="forged"):
            open_sealed(both["b"]["a"], sender, receiver, purpose, number, sealed)
    with pytest.raises(PartyError, match="forged"):
        open_sealed(both["b"]["a"], "a", "b", "gradient", 7, sealed[:-1] + bytes([sealed[-1] ^ 1]))


def test_another_view_gives_another_channel() -> None:
    one, other = new_private(), new_private()
    assert agree(one, public_of(other), VIEW) != agree(one, public_of(other), b"w" * 32)


@pytest.mark.parametrize("key", [bytes(32), (1).to_bytes(32, "little"), b"short"])
def test_keys_of_small_order_are_refused(key: bytes) -> None:
    with pytest.raises(PartyError, match="forged"):
        agree(new_private(), key, VIEW)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(2, 4),
    st.lists(st.floats(-1000, 1000, width=32), min_size=1, max_size=6),
    st.integers(1, 1 << 40),
)
def test_masks_cancel_in_the_sum(parties: int, values: list[float], number: int) -> None:
    names = [f"p{i}" for i in range(parties)]
    shared, own = channels(names), torch.tensor(values)
    total = np.zeros(len(values), np.uint64)
    for place, name in enumerate(names):
        total += masked(encoded(own * (place + 1)), name, shared[name], number)
    expected = own.double() * sum(range(1, parties + 1))
    assert torch.allclose(decoded(total, (len(values),)).double(), expected, rtol=1e-6, atol=parties * RESOLUTION)


def test_a_masked_message_is_uniform_and_never_the_same() -> None:
    """The bytes of one party's message pass a chi-squared test; with another number all are others."""
    shared = channels(["a", "b", "c"])
    words = encoded(torch.ones(20_000))
    message = masked(words, "a", shared["a"], 1)
    counts = np.bincount(message.view(np.uint8), minlength=256)
    expected = message.nbytes / 256
    assert ((counts - expected) ** 2 / expected).sum() < 256 + 6 * np.sqrt(2 * 256)
    again = masked(words, "a", shared["a"], 2)
    assert (message != again).mean() > 0.999
    unmasked = np.bincount(words.view(np.uint8), minlength=256)
    assert ((unmasked - expected) ** 2 / expected).sum() > 1e5  # the test can fail


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2.0**21])
def test_values_that_do_not_fit_are_refused(value: float) -> None:
    with pytest.raises(PartyError, match="out of range"):
        encoded(torch.tensor([0.0, value]))
