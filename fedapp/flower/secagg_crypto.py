"""Flower's primitives of secure aggregation: ECDH with HKDF-SHA-256, Fernet, and the encoding of a pair of shares.

Needs `flwr.common.secure_aggregation` (flwr 1.41, 1.42), which Flower's legacy workflows use. Where it is gone, only
runs with secure aggregation fail; nothing replaces it there, since all clients must use the same.
"""

from typing import Any

from fedapp.common.errors import FederationError
from fedapp.flower.names import warn_once

__all__ = [
    "decrypt",
    "encrypt",
    "generate_shared_key",
    "share_keys_plaintext_concat",
    "share_keys_plaintext_separate",
]


def _missing(*_: object, **__: object) -> Any:
    raise FederationError("secure aggregation: needs flwr.common.secure_aggregation of flwr >=1.41,<1.43")


try:
    from flwr.common.secure_aggregation.crypto.symmetric_encryption import decrypt, encrypt, generate_shared_key
    from flwr.common.secure_aggregation.secaggplus_utils import (
        share_keys_plaintext_concat,
        share_keys_plaintext_separate,
    )
except ImportError:
    warn_once("flwr.common.secure_aggregation", "runs with secure aggregation fail")
    decrypt = encrypt = generate_shared_key = _missing
    share_keys_plaintext_concat = share_keys_plaintext_separate = _missing
