"""Payloads sealed for one receiver: X25519, HKDF-SHA-256 and ChaCha20-Poly1305.

Every derived key is bound to what it is for, and serves once, so the cipher needs no random nonce.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

__all__ = ["KEY_BYTES", "OVERHEAD", "Part", "decrypt", "derived", "encrypt", "new_private", "public_of", "shared"]

Part = bytes | str | int

NONCE = bytes(12)
KEY_BYTES = 32
OVERHEAD = 16  # bytes of a sealed payload more than of its content


def new_private() -> bytes:
    """A private key, from the operating system's entropy."""
    form = (serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption())
    return X25519PrivateKey.generate().private_bytes(*form)


def public_of(private: bytes) -> bytes:
    form = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes(*form)


def shared(private: bytes, public: bytes) -> bytes:
    """What only the owners of the two keys know; to be put through `derived`. Raises ValueError for a key that gives
    none."""
    return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))


def derived(secret: bytes, *purpose: Part, length: int = KEY_BYTES) -> bytes:
    """A key of `length` bytes for `purpose`, by HKDF-SHA-256 (RFC 5869)."""
    parts = [part if isinstance(part, bytes) else str(part).encode() for part in purpose]
    info = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=None, info=info).derive(secret)


def encrypt(key: bytes, content: bytes) -> bytes:
    """Encrypted and authenticated by a key that never serves again."""
    return ChaCha20Poly1305(key).encrypt(NONCE, content, None)


def decrypt(key: bytes, sealed: bytes) -> bytes | None:
    """None for what was made with another key, or changed."""
    try:
        return ChaCha20Poly1305(key).decrypt(NONCE, sealed, None)
    except InvalidTag:
        return None
