"""Which SuperNodes a SuperLink admits: those whose public keys lie in its folder, and no others."""

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, UnregisterNodeRequest
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor

from fedapp.common.errors import ConfigError, FederationError

__all__ = ["Changes", "admit", "public_keys"]

GONE = "unregistered"  # Flower's status of a SuperNode that was taken out
Changes = dict[str, str]  # by name of a site, or what Flower calls it: what was done


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
    client = ControlHttpClient.from_server_address(
        address, False, authority.read_bytes(), [RuntimeVersionHttpInterceptor(component_name="flwr CLI")]
    )
    try:
        return _admit(client, keys)
    finally:
        client.close()


def _admit(client: ControlHttpClient, keys: dict[str, bytes]) -> Changes:
    changes: Changes = {}
    nodes = client.ListNodes(ListNodesRequest()).nodes_info
    there = {node.public_key: node for node in nodes if node.status != GONE}
    gone = {node.public_key for node in nodes if node.status == GONE}
    for key, node in there.items():
        if key not in keys.values():
            client.UnregisterNode(UnregisterNodeRequest(node_id=node.node_id))
            changes[node.name or str(node.node_id)] = "unregistered"
    for name, key in keys.items():
        if key in gone:
            raise FederationError(
                f"keys/{name}.pub: this key was revoked, and Flower takes no key twice; give the site a new one:"
                f" provision --renew {name}"
            )
        if key not in there:
            client.RegisterNode(RegisterNodeRequest(public_key=key, name=name))
            changes[name] = "registered"
    return changes
