"""Payloads sealed party to party. The server relays them and opens none.

Every party makes a new key pair for each session. All keys that are derived are bound to the session's view (who takes
part, with which keys, on which config), to sender, receiver and purpose, and to a number that only increases: none of
them serves twice, so the cipher needs no random nonce, and nothing can be replayed.
"""

from fedapp.common.sealed_boxes import OVERHEAD, decrypt, derived, encrypt, new_private, public_of, shared
from fedapp.vertical.party_error import PartyError

__all__ = ["MASK_BYTES", "OVERHEAD", "agree", "derive", "new_private", "open_sealed", "public_of", "seal"]

MASK_BYTES = 16


def agree(private: bytes, public: bytes, view: bytes) -> bytes:
    """A secret of two parties, for the session with this view. Raises PartyError for a key that gives none."""
    try:
        secret = shared(private, public)
    except ValueError:
        raise PartyError("forged", "a public key is none, or of small order") from None
    return derive(secret, "channel", view)


def derive(secret: bytes, *purpose: bytes | str | int, length: int = 32) -> bytes:
    """A key of `length` bytes for `purpose`."""
    return derived(secret, "fedapp vertical 1", *purpose, length=length)


def seal(channel: bytes, sender: str, receiver: str, purpose: str, number: int, content: bytes) -> bytes:
    """Encrypted and authenticated. The caller never uses one (sender, receiver, purpose, number) for two contents."""
    return encrypt(derive(channel, "seal", sender, receiver, purpose, number), content)


def open_sealed(channel: bytes, sender: str, receiver: str, purpose: str, number: int, sealed: bytes) -> bytes:
    """Raises PartyError for what was made with another key or for another purpose, or was changed."""
    content = decrypt(derive(channel, "seal", sender, receiver, purpose, number), sealed)
    if content is None:
        raise PartyError("forged", f"a payload ({purpose}) that {sender} has not sealed for {receiver} here")
    return content
