"""Which SuperNodes a SuperLink admits: those whose public keys are in its folder, and no others."""

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from fedapp.common.device_keys import client_of
from fedapp.common.errors import FederationError
from fedapp.flower.control import Control, connect
from fedapp.flower.registered import registered_name, site_of

__all__ = ["Changes", "admit", "change", "public_keys"]

Changes = dict[str, str]  # by site, or Flower's number of a SuperNode without a name: what was done


def public_keys(folder: Path) -> tuple[dict[str, bytes], dict[str, str]]:
    """By the name to register, the public keys (PEM) in the files NAME.pub of `folder`; and by site what is wrong with
    files that hold none."""
    found: dict[str, bytes] = {}
    faults: dict[str, str] = {}
    for file in sorted(folder.glob("*.pub")):
        try:
            line = file.read_bytes()
            key = serialization.load_ssh_public_key(line)
        except (ValueError, OSError, UnsupportedAlgorithm) as error:
            faults[file.stem] = f"skipped: {file} is not a public key in OpenSSH's format: {error}"
            continue
        pem, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        found[registered_name(file.stem, client_of(line))] = key.public_bytes(pem, form)
    return found, faults


def admit(
    address: str,
    authority: Path,
    keys: dict[str, bytes],
    unreadable: Collection[str],
    note: Callable[[Collection[bytes]], None],
) -> Changes:
    """Register `keys` at the SuperLink at `address`, and unregister all others. Done twice, it changes nothing. `note`
    is told of all keys that are registered afterwards, also where a call failed.

    Sites whose files are `unreadable` stay as they are: Flower never takes a key again that was unregistered once, and
    a file may be half copied. What is wrong with one site stops no other's change.
    """
    with connect(address, authority.read_bytes()) as control:
        try:
            return change(control, keys, unreadable)
        finally:
            note(frozenset(node.public_key for node in control.nodes() if not node.revoked))


def change(control: Control, keys: dict[str, bytes], unreadable: Collection[str] = ()) -> Changes:
    """What `admit` does, by this connection. Raises FederationError, once all else is done, for calls that failed."""
    changes: Changes = {}
    failed: Changes = {}
    nodes = control.nodes()
    there = {node.public_key: node for node in nodes if not node.revoked}
    revoked = {node.public_key for node in nodes if node.revoked}
    for key, node in there.items():
        if key not in keys.values() and site_of(node.name) not in unreadable:
            name = site_of(node.name) or str(node.node_id)
            _try(partial(control.unregister, node.node_id), name, "unregistered", changes, failed)
    for name, key in keys.items():
        site = site_of(name)
        if key in revoked:
            changes[site] = (
                f"not registered: the key in keys/{site}.pub was revoked, and Flower takes no key twice; give the site"
                f" a new one: provision --renew {site}"
            )
        elif key not in there:
            _try(partial(control.register, name, key), site, "registered", changes, failed)
    if failed:
        raise FederationError("; ".join(f"{name}: {what}" for name, what in {**changes, **failed}.items()))
    return changes


def _try(call: Callable[[], None], name: str, done: str, changes: Changes, failed: Changes) -> None:
    try:
        call()
        changes[name] = done
    except Exception as error:  # whatever Flower raises, it is about this site
        failed[name] = f"not {done}: {str(error) or type(error).__name__}"
