"""What devices sign in a round, by their own keys: the keys that they made for it.

Without it a server could invent all other clients of a cohort, know their masks, and be left with a single update.
"""

from fedapp.aggregation.secaggplus.cohort_view import CohortView, Member
from fedapp.aggregation.secaggplus.protocol_error import ProtocolError
from fedapp.common.device_keys import Identity, Peers

__all__ = ["check_signed_keys", "sign_keys"]

ROUND_KEYS = "round keys"


def sign_keys(
    identity: Identity, run: str, server_round: int, client: int, cipher_key: bytes, mask_key: bytes
) -> bytes:
    return identity.sign(ROUND_KEYS, run, server_round, client, cipher_key, mask_key)


def check_signed_keys(view: CohortView, peers: Peers) -> None:
    """Raises ProtocolError unless each client's keys are signed by the device that is pinned for it."""
    for member in view.members:
        fault = peers.fault(member.client, member.signature, ROUND_KEYS, *_told(view, member))
        if fault is not None:
            raise ProtocolError("forged", f"the keys of client {member.client}: {fault}")


def _told(view: CohortView, member: Member) -> tuple[str, int, int, bytes, bytes]:
    return view.run, view.server_round, member.client, member.cipher_key, member.mask_key
