"""scripts/deploy/sign: a signature of this checkout's app bundle, for SuperNodes that take no other.

Flower's SuperNodes verify signatures (`--trusted-entities`), but only Flower's hub makes and hands them out. Here they
are written to the SuperLink's folder, and the SuperLink's gateway hands them out in the hub's form. Flower's own code
verifies them on each device.
"""

import hashlib
import json
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from fedapp.common.errors import ConfigError
from fedapp.common.files import write_atomically
from fedapp.deploy import terminal
from fedapp.deploy.folders import make_private_folder, private_file, read_superlink, write_private
from fedapp.deploy.identity import new_signing_key, sign
from fedapp.flower.signatures import app_bundle, message_to_sign, signature_record, signer_of

__all__ = ["main"]

APP = Path(__file__).resolve().parents[2]
EXAMPLE = """Examples:
  scripts/deploy/sign --key release.key --new-key              # once: makes release.key and release.key.trusted.yaml
  scripts/deploy/sign --key release.key --superlink federation/superlink
  scripts/deploy/supernode ... --trusted-entities release.key.trusted.yaml
Sign again whenever fedapp/, conf/ or pyproject.toml has changed: runs of an unsigned bundle are refused by SuperNodes
that ask for signatures. The settings of a run are not part of the bundle, and cannot choose code."""


def parser() -> ArgumentParser:
    made = terminal.parser(__doc__, EXAMPLE)
    made.add_argument("--key", type=Path, required=True, help="the private Ed25519 key, in OpenSSH's format")
    made.add_argument("--new-key", action="store_true", help="make the key, and the file that SuperNodes trust it by")
    made.add_argument("--superlink", type=Path, metavar="FOLDER", help="its folder, where signatures go")
    return made


def main(arguments: Sequence[str]) -> int:
    given = parser().parse_args(arguments)
    if given.new_key:
        make_key(given.key)
    elif given.superlink is None:
        raise ConfigError("--superlink: name the folder where the signature goes, or make a key with --new-key")
    if given.superlink is not None:
        signatures = read_superlink(given.superlink).signatures
        digest = sign_bundle(given.key, app_bundle(APP), signatures)
        terminal.say(f"signed bundle {digest[:16]}...: {signatures / digest}.json")
    return 0


def make_key(file: Path) -> None:
    """The key, and beside it the public half as SuperNodes read it. Raises ConfigError where there is one."""
    if file.exists():
        raise ConfigError(f"--new-key: {file} is there already; leave --new-key out to use it, or name another file")
    private, public = new_signing_key()
    trusted = file.with_name(f"{file.name}.trusted.yaml")
    write_atomically(trusted, f"{signer_of(public)}: '{public.decode().strip()}'\n".encode())
    write_private(file, private)
    terminal.say(f"made {file}, which stays secret, and {trusted}, for the SuperNodes' --trusted-entities")


def sign_bundle(key: Path, bundle: bytes, signatures: Path) -> str:
    """Add a signature to what is known of `bundle`; returns its SHA-256."""
    digest, signed_at = hashlib.sha256(bundle), int(time.time())
    signature, public = sign(private_file(key).read_bytes(), message_to_sign(digest.digest(), signed_at))
    file = make_private_folder(signatures) / f"{digest.hexdigest()}.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    known[signer_of(public)] = signature_record(signature, signed_at)
    write_atomically(file, json.dumps(known).encode())
    return digest.hexdigest()
