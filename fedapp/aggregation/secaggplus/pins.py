"""Devices that know each other: keys of a round signed by each device's own key, and checked against those pinned.

Without it a server could invent all other clients of a cohort, know their masks, and be left with a single update.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedapp.aggregation.secaggplus.cohort_view import CohortView
from fedapp.aggregation.secaggplus.protocol_error import ProtocolError
from fedapp.common.errors import ConfigError, NodeConfigError

__all__ = ["Identity", "Peers", "read_identity", "read_peers"]

log = logging.getLogger("flwr")

FINGERPRINT = 16  # bytes


@dataclass(frozen=True)
class Identity:
    """A device's own key, the one by which the SuperLink knows it."""

    private: ec.EllipticCurvePrivateKey

    def sign(self, run: str, server_round: int, client: int, cipher_key: bytes, mask_key: bytes) -> bytes:
        """Which key it is, and its signature (ECDSA, SHA-384)."""
        message = _message(run, server_round, client, cipher_key, mask_key)
        return _fingerprint(self.private.public_key()) + self.private.sign(message, ec.ECDSA(hashes.SHA384()))


@dataclass(frozen=True)
class Peers:
    """The public keys, by fingerprint, of the devices that may be in a cohort with this one."""

    keys: Mapping[bytes, ec.EllipticCurvePublicKey]

    def check(self, view: CohortView) -> None:
        """Raises ProtocolError unless each client's keys are signed by a pinned device, each by another one."""
        used: set[bytes] = set()
        for member in view.members:
            name, signature = member.signature[:FINGERPRINT], member.signature[FINGERPRINT:]
            key = self.keys.get(name)
            if key is None:
                raise ProtocolError(
                    "forged", f"client {member.client}'s keys are signed by no device that is pinned here"
                )
            if name in used:
                raise ProtocolError(
                    "forged", f"client {member.client}'s keys are signed by the device of another client"
                )
            used.add(name)
            message = _message(view.run, view.server_round, member.client, member.cipher_key, member.mask_key)
            try:
                key.verify(signature, message, ec.ECDSA(hashes.SHA384()))
            except InvalidSignature:
                raise ProtocolError(
                    "forged", f"client {member.client}'s keys are not those that its device signed"
                ) from None


def read_identity(path: Path) -> Identity:
    """From a private key in OpenSSH's format. Raises ConfigError for what is none, whose text may leave the device:
    where the file lies stands in the log."""
    try:
        key = serialization.load_ssh_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it has a passphrase
        log.error("node-config signing-key=%s: %s", path, error)
        raise ConfigError("signing-key: no private key in OpenSSH's format (see the client's log)") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError("signing-key: must be an ECDSA key, as provision makes them")
    return Identity(key)


def read_peers(folder: Path) -> Peers:
    """From the files *.pub of a folder. Raises ConfigError where there are fewer than two, or one is no key."""
    found = {}
    for file in sorted(folder.glob("*.pub")):
        try:
            key = serialization.load_ssh_public_key(file.read_bytes())
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            log.error("node-config peers=%s: %s: %s", folder, file.name, error)
            raise NodeConfigError(f"peers: {file.name} is no public key (see the client's log)") from None
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise NodeConfigError(f"peers: {file.name} must be an ECDSA key, as provision makes them")
        found[_fingerprint(key)] = key
    if len(found) < 2:
        log.error("node-config peers=%s: %d public keys", folder, len(found))
        raise ConfigError("peers: needs the public keys (*.pub) of two devices or more")
    return Peers(found)


def _fingerprint(key: ec.EllipticCurvePublicKey) -> bytes:
    form = serialization.PublicFormat.CompressedPoint
    return hashlib.sha256(key.public_bytes(serialization.Encoding.X962, form)).digest()[:FINGERPRINT]


def _message(run: str, server_round: int, client: int, cipher_key: bytes, mask_key: bytes) -> bytes:
    parts = [b"fedapp round keys 1", run.encode(), str(server_round).encode(), str(client).encode()]
    return b"".join(len(part).to_bytes(4, "big") + part for part in (*parts, cipher_key, mask_key))
