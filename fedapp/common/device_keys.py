"""Devices' own keys: signed with, pinned and checked here, for whatever a device has to prove to other sites.

A device's key is the one by which the SuperLink knows it (ECDSA on P-384). A site trusts the devices whose public keys
lie in its operator's folder `peers`: files *.pub in OpenSSH's format whose comment binds the key to the number of its
client, as in `ecdsa-sha2-nistp384 AAAA... client=3`. A signature is a public key (a compressed point) and what it
signed, so that whoever pins nobody can at least tell signers apart.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedapp.common.errors import ConfigError, NodeConfigError
from fedapp.common.sealed_boxes import decrypt, derived, encrypt

__all__ = [
    "Identity",
    "Peers",
    "client_of",
    "is_signed",
    "public_line",
    "read_helpers",
    "read_identity",
    "read_peers",
    "seal_for",
    "signer",
]

log = logging.getLogger("flwr")

Part = bytes | str | int

CURVE, DIGEST = ec.SECP384R1(), hashes.SHA384()
POINT_BYTES = 49  # a compressed point of P-384
BOUND = re.compile(rb"client=(\d{1,18})")


@dataclass(frozen=True)
class Identity:
    """A device's own key."""

    private: ec.EllipticCurvePrivateKey

    @property
    def public(self) -> bytes:
        return _point(self.private.public_key())

    def sign(self, purpose: str, *parts: Part) -> bytes:
        """A signature of `parts` that serves for `purpose` alone."""
        return self.public + self.private.sign(_message(purpose, parts), ec.ECDSA(DIGEST))

    def unseal(self, sealed: bytes, purpose: str, *parts: Part) -> bytes | None:
        """What was sealed for this device (`seal_for`); None for what was not, or for another purpose."""
        try:
            other = ec.EllipticCurvePublicKey.from_encoded_point(CURVE, sealed[:POINT_BYTES])
            secret = self.private.exchange(ec.ECDH(), other)
        except ValueError:
            return None
        return decrypt(_sealing_key(secret, sealed[:POINT_BYTES], self.public, purpose, parts), sealed[POINT_BYTES:])


def seal_for(public: bytes, content: bytes, purpose: str, *parts: Part) -> bytes:
    """`content` for the device with this public key alone: ECIES on its own curve, with a key pair that serves once.

    That one key signs and receives weakens neither (Degabriele et al. 2012); what it receives says nothing of who sent
    it.
    """
    once = ec.generate_private_key(CURVE)
    secret = once.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(CURVE, public))
    point = _point(once.public_key())
    return point + encrypt(_sealing_key(secret, point, public, purpose, parts), content)


def signer(signature: bytes) -> bytes:
    """The public key that a signature says it is by."""
    return signature[:POINT_BYTES]


def is_signed(signature: bytes, purpose: str, *parts: Part) -> bool:
    """Whether the key that a signature names has signed `parts` for `purpose`."""
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(CURVE, signer(signature))
        key.verify(signature[POINT_BYTES:], _message(purpose, parts), ec.ECDSA(DIGEST))
    except (InvalidSignature, ValueError):
        return False
    return True


@dataclass(frozen=True)
class Peers:
    """Whom a site trusts: by number of a client, the public key of its device."""

    keys: Mapping[int, bytes]

    def fault(self, client: int, signature: bytes, purpose: str, *parts: Part) -> str | None:
        """Why `signature` does not show that the device of this client has signed `parts`; None if it does. The keys of
        other sites do not speak for it."""
        known = self.keys.get(client)
        if known is None:
            return "no device is pinned here for this client"
        if signer(signature) != known:
            return "signed by another device than the one that is pinned here for this client"
        return None if is_signed(signature, purpose, *parts) else "not what its device signed"


def read_identity(path: Path) -> Identity:
    """From a private key in OpenSSH's format. Raises ConfigError for what is none, whose text may leave the device:
    where the file lies stands in the log."""
    try:
        key = serialization.load_ssh_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it has a passphrase
        log.error("node-config signing-key=%s: %s", path, error)
        raise ConfigError("signing-key: no private key in OpenSSH's format (see the client's log)") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != CURVE.name:
        raise ConfigError("signing-key: must be an ECDSA key on P-384, as provision makes them")
    return Identity(key)


def read_peers(folder: Path) -> Peers:
    """From the files *.pub of a folder. Raises ConfigError where there are fewer than two, one is no key or is bound to
    no client, and where a key or a client is there twice."""
    found = _read_keys("peers", folder)
    if len(found) < 2:
        log.error("node-config peers=%s: %d public keys", folder, len(found))
        raise ConfigError("peers: needs the public keys (*.pub) of two devices or more")
    return Peers(found)


def read_helpers(path: Path) -> tuple[bytes, ...]:
    """The public keys of the helpers that a site accepts, from one file or the files *.pub of a folder; in order of
    their numbers. Raises ConfigError as `read_peers`, and where there is none."""
    found = _read_keys("helper", path)
    if not found:
        log.error("node-config helper=%s: no public key", path)
        raise ConfigError("helper: needs the public key (*.pub) of the helper")
    return tuple(found[number] for number in sorted(found))


def _read_keys(setting: str, path: Path) -> dict[int, bytes]:
    """By number of a client. `path`: a file, or a folder of files *.pub."""
    found: dict[int, bytes] = {}
    files: dict[int | bytes, str] = {}
    for file in sorted(path.glob("*.pub")) if path.is_dir() else [path]:
        try:
            line = file.read_bytes()
            key = serialization.load_ssh_public_key(line)
        except (OSError, ValueError, UnsupportedAlgorithm) as error:
            log.error("node-config %s=%s: %s: %s", setting, path, file.name, error)
            raise NodeConfigError(f"{setting}: {file.name} is no public key (see the client's log)") from None
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != CURVE.name:
            raise NodeConfigError(f"{setting}: {file.name} must be an ECDSA key on P-384, as provision makes them")
        client = client_of(line)
        if client is None:
            raise NodeConfigError(
                f"{setting}: {file.name} is bound to no client; write client=N behind the key, as provision does, with"
                " the number of the site's client"
            )
        point = _point(key)
        if other := files.get(client) or files.get(point):
            raise NodeConfigError(f"{setting}: {other} and {file.name} are of the same client, or hold the same key")
        files[client] = files[point] = file.name
        found[client] = point
    return found


def public_line(public: str, client: int) -> bytes:
    """The content of a file *.pub: a public key in OpenSSH's format, bound to the number of its client."""
    kind, key, *_ = public.split()
    return f"{kind} {key} client={client}\n".encode()


def client_of(line: bytes) -> int | None:
    """The client that the comment of a public key binds it to; None where it says none, or several."""
    said = [match for word in line.split()[2:] if (match := BOUND.fullmatch(word))]
    return int(said[0][1]) if len(said) == 1 else None


def _point(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)


def _message(purpose: str, parts: tuple[Part, ...]) -> bytes:
    said = [part if isinstance(part, bytes) else str(part).encode() for part in (f"fedapp {purpose} 1", *parts)]
    return b"".join(len(part).to_bytes(4, "big") + part for part in said)


def _sealing_key(secret: bytes, once: bytes, public: bytes, purpose: str, parts: tuple[Part, ...]) -> bytes:
    return derived(secret, "fedapp device", once, public, _message(purpose, parts))
