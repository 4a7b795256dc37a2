"""Signatures of app bundles (FABs) in the form of Flower's hub, which SuperNodes verify (`--trusted-entities`).

Needs `flwr.cli.build.build_fab_from_disk`, `create_message_to_sign`, `flwr.proto.fab_pb2.GetFabResponse`, and of
`flwr.supernode.start_client_internal._verify_fab` that it takes the signatures written here (flwr 1.41, 1.42). Without
`create_message_to_sign` the message of these versions is signed; without GetFabResponse bundles go out unsigned, and
SuperNodes that ask for signatures refuse them. `build_fab_from_disk` has no fallback: what is signed must be, byte for
byte, what `flwr run` sends.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fedapp.flower.names import find

__all__ = ["app_bundle", "message_to_sign", "signature_record", "signer_of", "with_signatures"]

PRESENT = "valid_license"  # the key under which SuperNodes look whether there are signatures at all


def app_bundle(app: Path) -> bytes:
    """The bundle that `flwr run` makes of the folder `app`."""
    from flwr.cli.build import build_fab_from_disk  # with all of Flower's commands

    return build_fab_from_disk(app)


def message_to_sign(digest: bytes, signed_at: int) -> bytes:
    """What is signed for a bundle of this SHA-256 at this time, in seconds since 1970."""
    make = find(
        "flwr.supercore.primitives.asymmetric_ed25519",
        "create_message_to_sign",
        otherwise="bundles are signed as flwr 1.42 verifies them; SuperNodes may refuse that",
    )
    return bytes(make(digest, signed_at)) if make is not None else signed_at.to_bytes(8, "big") + digest


def signer_of(public: bytes) -> str:
    """The name under which SuperNodes look up a public key, given in OpenSSH's format."""
    return f"fpk_{hashlib.sha256(public).hexdigest()[:32]}"


def signature_record(signature: bytes, signed_at: int) -> dict[str, Any]:
    """What is stored of one signature, and sent to SuperNodes as JSON."""
    return {"signature": base64.urlsafe_b64encode(signature).rstrip(b"=").decode(), "signed_at": signed_at}


def with_signatures(reply: bytes, signatures_of: Callable[[str], Mapping[str, Any]]) -> bytes:
    """The reply to a SuperNode's `get-fab`, with `signatures_of` the bundle's SHA-256: records by signer."""
    kind = find(
        "flwr.proto.fab_pb2",
        "GetFabResponse",
        otherwise="app bundles go out without signatures; SuperNodes started with --trusted-entities refuse them",
    )
    if kind is None:
        return reply
    found = kind.FromString(reply)
    signatures = signatures_of(found.fab.hash_str)
    for signer, record in signatures.items():
        found.fab.verifications[signer] = json.dumps(record)
    if signatures:
        found.fab.verifications[PRESENT] = "Valid"
    return bytes(found.SerializeToString())
