"""What devices sign in a round, by their own keys: the keys that they made for it, and who is in the sum.

Without signed keys a server could invent all other clients of a cohort, know their masks, and be left with a single
update; without signed lists it could unmask a small part of the sum (see `unmasking`).
"""

from fedapp.aggregation.secaggplus.cohort_view import CohortView, Member
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.common.device_keys import Identity, Peers, is_signed, signer

__all__ = ["check_signed_keys", "sign_keys", "sign_list", "signed_keys", "signed_list"]

ROUND_KEYS, SURVIVORS = "round keys", "survivors"


def sign_keys(
    identity: Identity, run: str, server_round: int, client: int, cipher_key: bytes, mask_key: bytes
) -> bytes:
    return identity.sign(ROUND_KEYS, run, server_round, client, cipher_key, mask_key)


def signed_keys(run: str, server_round: int, member: Member) -> bool:
    """Whether a client's keys are signed, by whichever key its signature names."""
    return is_signed(member.signature, ROUND_KEYS, *_told(run, server_round, member))


def check_signed_keys(view: CohortView, peers: Peers | None) -> None:
    """Raises ProtocolError unless each client's keys are signed by the device that is pinned for it; where nobody is
    pinned, by any device, each by another one."""
    used: set[bytes] = set()
    faults: dict[int, str] = {}
    for member in view.members:
        told = _told(view.run, view.server_round, member)
        if peers is not None:
            fault = peers.fault(member.client, member.signature, ROUND_KEYS, *told)
        elif signer(member.signature) in used:
            fault = "signed by the device of another client"
        else:
            fault = None if is_signed(member.signature, ROUND_KEYS, *told) else "signed by no device"
        used.add(signer(member.signature))
        if fault is not None:
            faults[member.client] = fault
    if faults:
        first, fault = next(iter(faults.items()))
        raise ProtocolError("forged", f"the keys of client {first}: {fault}", accused=faults)


def sign_list(identity: Identity, view: CohortView, client: int, survivors: bytes) -> bytes:
    """`survivors`: the digest of the list."""
    return identity.sign(SURVIVORS, view.digest, client, survivors)


def signed_list(view: CohortView, client: int, signature: bytes, survivors: bytes) -> bool:
    """Whether the device that has signed a client's keys for this round has signed this list."""
    member = view.by_client[client]
    return signer(signature) == signer(member.signature) and is_signed(
        signature, SURVIVORS, view.digest, client, survivors
    )


def _told(run: str, server_round: int, member: Member) -> tuple[str, int, int, bytes, bytes]:
    return run, server_round, member.client, member.cipher_key, member.mask_key
