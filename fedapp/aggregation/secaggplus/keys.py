"""Keys of a round: agreed on by ECDH, drawn from the operating system, bound to what they are for.

Key agreement and encryption are Flower's (`symmetric_encryption`: ECDH with HKDF-SHA-256, and Fernet, that is AES-CBC
with HMAC-SHA-256). Flower derives its keys for no context in particular; here every key is derived once more for its
purpose and the round's view, so that nothing made for one round, cohort or direction serves in another.
"""

import os
from base64 import urlsafe_b64encode
from hashlib import blake2s

from cryptography.fernet import InvalidToken
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedapp.aggregation.secaggplus.shamir import SECRET_BYTES
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.common.sealed_boxes import derived
from fedapp.flower.secagg_crypto import decrypt, encrypt, generate_shared_key

__all__ = ["KEY_BYTES", "KeyPair", "commitment", "derive", "new_seed", "open_sealed", "seal"]

CURVE = ec.SECP256R1()
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
KEY_BYTES = 33  # a compressed point


def new_seed() -> bytes:
    """A secret of 128 bits from the operating system's entropy: small enough for one share."""
    return os.urandom(SECRET_BYTES)


def derive(secret: bytes, *purpose: bytes | str | int, length: int = SECRET_BYTES) -> bytes:
    """A key of `length` bytes for `purpose`, by HKDF-SHA-256 (RFC 5869)."""
    return derived(secret, "fedapp", *purpose, length=length)


class KeyPair:
    """A key pair on P-256 that follows from a seed, which can be shared out."""

    def __init__(self, seed: bytes) -> None:
        number = int.from_bytes(derive(seed, "key pair", length=48), "big")
        self._private = ec.derive_private_key(number % (ORDER - 1) + 1, CURVE)

    @property
    def public(self) -> bytes:
        form = serialization.PublicFormat.CompressedPoint
        return self._private.public_key().public_bytes(serialization.Encoding.X962, form)

    def agree(self, public: bytes, *purpose: bytes | str | int) -> bytes:
        """A secret of 16 bytes that only the owners of the two keys know. Raises ProtocolError for what is no key."""
        try:
            other = ec.EllipticCurvePublicKey.from_encoded_point(CURVE, public)
        except ValueError:
            raise ProtocolError("forged", "a public key is no point of the curve") from None
        return derive(generate_shared_key(self._private, other), *purpose)


def seal(key: bytes, content: bytes) -> bytes:
    """Encrypted and authenticated."""
    return encrypt(_fernet(key), content)


def open_sealed(key: bytes, sealed: bytes) -> bytes | None:
    """None where it was made with another key, or changed."""
    try:
        return decrypt(_fernet(key), sealed)
    except (InvalidToken, ValueError, TypeError):
        return None


def _fernet(key: bytes) -> bytes:
    return urlsafe_b64encode(derive(key, "fernet", length=32))


def commitment(secret: bytes, *purpose: bytes | str | int) -> bytes:
    """Binds whoever publishes it to a secret of 128 random bits, and says nothing of it."""
    return blake2s(derive(secret, "commitment", *purpose), digest_size=16).digest()
