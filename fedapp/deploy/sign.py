"""scripts/deploy/sign: a signature of this checkout's app bundle, for SuperNodes that take no other.

Flower's SuperNodes verify signatures (`--trusted-entities`), but Flower 1.41 has them made and handed out by its hub
only. Here the SuperLink's gateway hands out what lies in the SuperLink's folder, in the hub's form; what counts is what
Flower's own code on each device makes of it.
"""

import base64
import hashlib
import json
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from flwr.cli.build import build_fab_from_disk
from flwr.supercore.primitives.asymmetric_ed25519 import create_message_to_sign

from fedapp.common.errors import ConfigError
from fedapp.common.files import write_atomically
from fedapp.deploy import terminal
from fedapp.deploy.folders import make_private_folder, private_file, read_superlink, write_private
from fedapp.deploy.identity import new_signing_key, sign

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
        digest = sign_bundle(given.key, build_fab_from_disk(APP), signatures)
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


def signer_of(public: bytes) -> str:
    """The name under which Flower looks a public key up."""
    return f"fpk_{hashlib.sha256(public).hexdigest()[:32]}"


def sign_bundle(key: Path, bundle: bytes, signatures: Path) -> str:
    """Add a signature to what is known of `bundle`; returns its SHA-256."""
    digest, signed_at = hashlib.sha256(bundle), int(time.time())
    message = create_message_to_sign(digest.digest(), signed_at)
    signature, public = sign(private_file(key).read_bytes(), message)
    file = make_private_folder(signatures) / f"{digest.hexdigest()}.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    text = base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
    known[signer_of(public)] = {"signature": text, "signed_at": signed_at}
    write_atomically(file, json.dumps(known).encode())
    return digest.hexdigest()
