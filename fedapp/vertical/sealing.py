"""Payloads sealed party to party: X25519, HKDF-SHA-256 and ChaCha20-Poly1305. The server relays them and opens none.

Every party makes a new key pair for each session. All keys that are derived are bound to the session's view (who takes
part, with which keys, on which config), to sender, receiver and purpose, and to a number that only increases: none of
them serves twice, so the cipher needs no random nonce, and nothing can be replayed.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedapp.vertical.party_error import PartyError

__all__ = ["MASK_BYTES", "OVERHEAD", "agree", "derive", "new_private", "open_sealed", "public_of", "seal"]

NONCE = bytes(12)
OVERHEAD = 16  # bytes of a sealed payload more than of its content
MASK_BYTES = 16


def new_private() -> bytes:
    """A private key, from the operating system's entropy."""
    form = (serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption())
    return X25519PrivateKey.generate().private_bytes(*form)


def public_of(private: bytes) -> bytes:
    form = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes(*form)


def agree(private: bytes, public: bytes, view: bytes) -> bytes:
    """A secret of two parties, for the session with this view. Raises PartyError for a key that gives none."""
    try:
        shared = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise PartyError("forged", "a public key is none, or of small order") from None
    return derive(shared, "channel", view)


def derive(secret: bytes, *purpose: bytes | str | int, length: int = 32) -> bytes:
    """A key of `length` bytes for `purpose`, by HKDF-SHA-256 (RFC 5869)."""
    parts = [part if isinstance(part, bytes) else str(part).encode() for part in ("fedapp vertical 1", *purpose)]
    info = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=None, info=info).derive(secret)


def seal(channel: bytes, sender: str, receiver: str, purpose: str, number: int, content: bytes) -> bytes:
    """Encrypted and authenticated. The caller never uses one (sender, receiver, purpose, number) for two contents."""
    key = derive(channel, "seal", sender, receiver, purpose, number)
    return ChaCha20Poly1305(key).encrypt(NONCE, content, None)


def open_sealed(channel: bytes, sender: str, receiver: str, purpose: str, number: int, sealed: bytes) -> bytes:
    """Raises PartyError for what was made with another key or for another purpose, or was changed."""
    key = derive(channel, "seal", sender, receiver, purpose, number)
    try:
        return ChaCha20Poly1305(key).decrypt(NONCE, sealed, None)
    except InvalidTag:
        raise PartyError("forged", f"a payload ({purpose}) that {sender} has not sealed for {receiver} here") from None
