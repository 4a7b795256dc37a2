"""Which SuperNodes a SuperLink admits: those whose public keys are in its folder, and no others."""

from pathlib import Path

from cryptography.hazmat.primitives import serialization

from fedapp.common.errors import ConfigError, FederationError
from fedapp.flower.control import Control, connect

__all__ = ["Changes", "admit", "public_keys"]

Changes = dict[str, str]  # by site, or Flower's number of a SuperNode without a name: what was done


def public_keys(folder: Path) -> dict[str, bytes]:
    """By site, the public keys (PEM) in the files NAME.pub of `folder`. Raises ConfigError for a file that is none."""
    found: dict[str, bytes] = {}
    for file in sorted(folder.glob("*.pub")):
        try:
            key = serialization.load_ssh_public_key(file.read_bytes())
        except (ValueError, OSError) as error:
            raise ConfigError(f"{file}: not a public key in OpenSSH's format: {error}") from None
        pem, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        found[file.stem] = key.public_bytes(pem, form)
    return found


def admit(address: str, authority: Path, keys: dict[str, bytes]) -> Changes:
    """Register `keys` at the SuperLink at `address`, and unregister all others. Done twice, it changes nothing.

    Raises FederationError for a key that was unregistered once: Flower never takes it again.
    """
    with connect(address, authority.read_bytes()) as control:
        return _admit(control, keys)


def _admit(control: Control, keys: dict[str, bytes]) -> Changes:
    changes: Changes = {}
    nodes = control.nodes()
    there = {node.public_key: node for node in nodes if not node.revoked}
    revoked = {node.public_key for node in nodes if node.revoked}
    for key, node in there.items():
        if key not in keys.values():
            control.unregister(node.node_id)
            changes[node.name or str(node.node_id)] = "unregistered"
    for name, key in keys.items():
        if key in revoked:
            raise FederationError(
                f"keys/{name}.pub: this key was revoked, and Flower takes no key twice; give the site a new one:"
                f" provision --renew {name}"
            )
        if key not in there:
            control.register(name, key)
            changes[name] = "registered"
    return changes
