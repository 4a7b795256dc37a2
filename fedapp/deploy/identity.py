"""Certificates and keys, made from the operating system's entropy, as Flower 1.41 takes them.

The SuperLink proves who it is by a certificate of the federation's own authority; a SuperNode by an EC key that the
SuperLink has registered. Curve P-384 throughout.
"""

import ipaddress
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedapp.common.errors import ConfigError

__all__ = [
    "check_host",
    "expiry",
    "new_authority",
    "new_server_certificate",
    "new_signing_key",
    "new_supernode_key",
    "public_key_of",
    "sign",
]

AUTHORITY_DAYS = 3650
BACKDATED = timedelta(minutes=5)  # clocks differ
PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def check_host(host: str) -> str:
    """`host` if it is a host name or an IP address. Raises ConfigError."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    label = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    if len(host) > 253 or not re.fullmatch(rf"{label}(\.{label})*", host) or re.fullmatch(r"[0-9.]+", host):
        raise ConfigError(f"--host {host}: must be a host name or an IP address, as the SuperNodes will reach it")
    return host.lower()


def new_authority() -> tuple[bytes, bytes]:
    """A private key and its self-signed certificate, both PEM: the authority that the federation's machines trust."""
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedapp federation authority")])
    usage = x509.KeyUsage(
        **_no_usage() | {"digital_signature": True, "key_cert_sign": True, "crl_sign": True},
    )
    builder = (
        _begin(name, name, key.public_key(), timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return _private_pem(key), _signed(builder, key.public_key(), key)


def new_server_certificate(
    authority_key: bytes, authority: bytes, hosts: Sequence[str], lifetime: timedelta
) -> tuple[bytes, bytes]:
    """A private key and a certificate for a server at `hosts` (names and IP addresses), both PEM."""
    issuer = x509.load_pem_x509_certificate(authority)
    issuer_key = serialization.load_pem_private_key(authority_key, password=None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedapp SuperLink")])
    builder = (
        _begin(name, issuer.subject, key.public_key(), lifetime)
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**_no_usage() | {"digital_signature": True}), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    return _private_pem(key), _signed(builder, issuer_key.public_key(), issuer_key)


def new_supernode_key() -> tuple[bytes, bytes]:
    """A SuperNode's private and public key, in OpenSSH's format."""
    return _openssh(ec.generate_private_key(ec.SECP384R1()))


def new_signing_key() -> tuple[bytes, bytes]:
    """A private and a public Ed25519 key for signing app bundles, in OpenSSH's format."""
    return _openssh(ed25519.Ed25519PrivateKey.generate())


def public_key_of(private: bytes) -> bytes:
    """The public half of a SuperNode's private key, in OpenSSH's format. Raises ConfigError for anything else."""
    try:
        key = serialization.load_ssh_private_key(private, password=None)
    except ValueError as error:
        raise ConfigError(f"not a private key in OpenSSH's format: {error}") from None
    return _public(key.public_key())


def sign(private: bytes, message: bytes) -> tuple[bytes, bytes]:
    """The signature of `message` and the public key in OpenSSH's format. Raises ConfigError for another kind of key."""
    try:
        key = serialization.load_ssh_private_key(private, password=None)
    except ValueError as error:
        raise ConfigError(f"not a private key in OpenSSH's format: {error}") from None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ConfigError("not an Ed25519 key, which Flower wants for signatures")
    return key.sign(message), _public(key.public_key())


def expiry(certificate: Path) -> datetime:
    """When a PEM certificate ends, in UTC."""
    return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _begin(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, lifetime: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, now + lifetime) - BACKDATED)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _signed(
    builder: x509.CertificateBuilder, issuer: ec.EllipticCurvePublicKey, issuer_key: ec.EllipticCurvePrivateKey
) -> bytes:
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer)
    signed = builder.add_extension(identifier, critical=False).sign(issuer_key, hashes.SHA384())
    return signed.public_bytes(serialization.Encoding.PEM)


def _no_usage() -> dict[str, bool]:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    return dict.fromkeys((*names, "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"), False)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _openssh(key: PrivateKey) -> tuple[bytes, bytes]:
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    return private, _public(key.public_key())


def _public(key: serialization.SSHPublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH) + b"\n"
