"""A helper's public keys of one run, signed by its device: clients take no others."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.common.device_keys import Identity, is_signed, signer
from fedapp.common.sealed_boxes import KEY_BYTES

__all__ = ["NO_HELPER", "RunKeys", "check_sizes", "chosen", "signed_keys_of_run"]

PURPOSE = "helper run keys"
NO_HELPER = "no helper"  # the kind of an error: one that is needed does not answer, or its keys are not passed on
MOST_SIGNATURE_BYTES = 256


@dataclass(frozen=True)
class RunKeys:
    """`key`: for seeds. `public`: of the encryption, where there is one. `signature`: of the helper's device."""

    key: bytes
    public: bytes = b""
    signature: bytes = b""


def signed_keys_of_run(keys: RunKeys, identity: Identity | None, run: str, config: str) -> RunKeys:
    if identity is None:
        return keys
    return RunKeys(keys.key, keys.public, identity.sign(PURPOSE, *_told(keys, run, config)))


def chosen(
    offered: Sequence[RunKeys], pinned: Sequence[bytes] | None, wanted: int, run: str, config: str
) -> tuple[RunKeys, ...]:
    """Of the keys that a server passes on, those of the helpers that a client has pinned, all of them; where it pins
    nobody, as in a simulation, the first `wanted`. Raises ProtocolError."""
    if pinned is None:
        if len(offered) < wanted:
            raise ProtocolError("forged", f"keys of {len(offered)} helpers, {wanted} are needed")
        return tuple(offered[:wanted])
    found = {}
    for keys in offered:
        if len(keys.key) == KEY_BYTES and is_signed(keys.signature, PURPOSE, *_told(keys, run, config)):
            found[signer(keys.signature)] = keys
    if missing := [key for key in pinned if key not in found]:
        raise ProtocolError(
            NO_HELPER,
            f"{len(missing)} of the {len(pinned)} helpers that this site has pinned (node-config helper) have signed no"
            f" keys for this run and config, among {len(offered)} that came",
        )
    return tuple(found[key] for key in pinned)


def check_sizes(keys: RunKeys, most_public: int) -> None:
    """Before a server passes them on. Raises ValueError. `most_public`: bytes of a public key."""
    if len(keys.key) != KEY_BYTES or len(keys.public) > most_public or len(keys.signature) > MOST_SIGNATURE_BYTES:
        sizes = [len(part) for part in (keys.key, keys.public, keys.signature)]
        most = [KEY_BYTES, most_public, MOST_SIGNATURE_BYTES]
        raise ValueError(f"keys of {sizes} bytes, they have {most} at most")


def _told(keys: RunKeys, run: str, config: str) -> tuple[str, str, bytes, bytes]:
    return run, config, keys.key, hashlib.sha256(keys.public).digest()
