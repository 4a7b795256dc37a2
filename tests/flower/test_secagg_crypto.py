"""Flower's primitives of secure aggregation are there and do what the protocol needs; without them only it fails."""

import subprocess
import sys
from collections.abc import Callable

import pytest
from cryptography.fernet import InvalidToken
from cryptography.hazmat.primitives.asymmetric import ec

from fedapp.flower import secagg_crypto

LEGACY = "flwr.common.secure_aggregation"


def test_flower_has_the_names(expect_names: Callable[..., None]) -> None:
    module = f"{LEGACY}.crypto.symmetric_encryption"
    expect_names("secagg_crypto.py", module, "encrypt", "decrypt", "generate_shared_key")
    module = f"{LEGACY}.secaggplus_utils"
    expect_names("secagg_crypto.py", module, "share_keys_plaintext_concat", "share_keys_plaintext_separate")


def test_two_agree_on_a_key_that_encrypts() -> None:
    first, second = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    key = secagg_crypto.generate_shared_key(first, second.public_key())
    assert key == secagg_crypto.generate_shared_key(second, first.public_key())
    sealed = secagg_crypto.encrypt(key, b"a share")
    assert b"a share" not in sealed
    assert secagg_crypto.decrypt(key, sealed) == b"a share"
    other = secagg_crypto.generate_shared_key(first, first.public_key())
    with pytest.raises(InvalidToken):
        secagg_crypto.decrypt(other, sealed)


def test_shares_come_apart_as_they_were_put_together() -> None:
    packed = secagg_crypto.share_keys_plaintext_concat(3, 2**40, b"self", b"mask key")
    assert secagg_crypto.share_keys_plaintext_separate(packed) == (3, 2**40, b"self", b"mask key")


WITHOUT = f"""
import sys
import flwr.app  # which imports the legacy workflows, and with them what is taken away here
for name in [name for name in sys.modules if name.startswith({LEGACY!r})]:
    sys.modules[name] = None
import fedapp.client.handlers
import fedapp.aggregation.secaggplus.option
from fedapp.aggregation.secaggplus import keys
from fedapp.common.errors import FederationError
for _ in range(2):
    try:
        keys.seal(keys.new_seed(), b"a share")
    except FederationError as error:
        print(error)
"""


@pytest.mark.slow
def test_without_them_only_secure_aggregation_fails() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"secure aggregation: needs {LEGACY}") == 2
    assert done.stderr.count("as fedapp expects it") == 1
