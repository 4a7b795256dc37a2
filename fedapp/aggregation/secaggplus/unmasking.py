"""A client's last two steps: it signs the list of survivors, and reveals shares for the list that it has signed.

Without signatures a server could tell some that a client has survived, and others that it has gone, and unmask a small
part of the sum (Bonawitz et al. 2017, section 6.2). Who holds a client's shares signs one list. So once `needed` of the
holders of every client in one's own part of the sum have signed a list, no part of it can be unmasked alone: for that,
as many would have to reveal that one of its clients has gone, and 2 * needed is above their number.
"""

import hashlib
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from fedapp.aggregation.secaggplus.cohort_view import CohortView
from fedapp.aggregation.secaggplus.kept import Secrets, enough, expect, subset
from fedapp.aggregation.secaggplus.least_sum import ANY, LeastSum
from fedapp.aggregation.secaggplus.signing import signed_list
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError

__all__ = ["Revealed", "agree", "list_digest", "unmask"]


@dataclass(frozen=True)
class Revealed:
    """Shares that a client holds, by owner: of the self-mask seeds of those who sent a vector, and of the mask keys of
    those who did not."""

    self_shares: Mapping[int, bytes]
    key_shares: Mapping[int, bytes]


def list_digest(view: CohortView, survivors: Collection[int], dropped: Collection[int]) -> bytes:
    """Of what is signed: the cohort, who is in the sum, and who is not any more."""
    packed = [struct.pack(f">q{len(found)}q", len(found), *sorted(found)) for found in (survivors, dropped)]
    return hashlib.sha256(b"".join((view.digest, *packed))).digest()


def agree(
    secrets: Secrets, view: CohortView, survivors: Collection[int], dropped: Collection[int], least: LeastSum
) -> Secrets:
    """Take this list of survivors for the round's only one, which may then be signed."""
    expect(secrets, "masked", view.run, view.server_round, view.digest)
    _checked(secrets, view, survivors, dropped, least)
    return replace(secrets, stage="consistency", agreed=list_digest(view, survivors, dropped))


def unmask(
    secrets: Secrets,
    view: CohortView,
    survivors: Collection[int],
    dropped: Collection[int],
    signatures: Mapping[int, bytes] | None = None,
    *,
    least: LeastSum = ANY,
) -> Revealed:
    """The shares that open the sum over `survivors`. `signatures`: of the list, by client. The caller must delete
    `secrets`, whatever comes of it: of each neighbour a client reveals one kind of share, once."""
    signed = least.signed or secrets.stage == "consistency"
    expect(secrets, "consistency" if signed else "masked", view.run, view.server_round, view.digest)
    found = _checked(secrets, view, survivors, dropped, least)
    if signed and list_digest(view, survivors, dropped) != secrets.agreed:
        raise ProtocolError("wrong cohort", "another list of survivors than the one that this client has signed")
    if least.signed:
        _check_signatures(secrets, view, found, signatures or {})
    holders = [other for other in view.holders(secrets.client) if other in secrets.present]
    return Revealed(
        {other: secrets.held[other][0] for other in holders if other in found},
        {other: secrets.held[other][1] for other in holders if other not in found},
    )


def _checked(
    secrets: Secrets, view: CohortView, survivors: Collection[int], dropped: Collection[int], least: LeastSum
) -> set[int]:
    """The survivors. Raises ProtocolError for lists that no honest server would send, or of too few."""
    both = sorted(set(survivors) & set(dropped))
    if both:
        raise ProtocolError(
            "both secrets", f"the server asks for the self-mask and the mask key of clients {both[:10]}"
        )
    found = subset(view, survivors, secrets.client, "whose vectors came")
    if found | set(dropped) != set(secrets.present) or len(dropped) != len(set(dropped)):
        raise ProtocolError("wrong cohort", "survivors and dropped clients are not together those who have shared")
    least.check(view, secrets.client, found)
    enough(sum(other in found for other in view.holders(secrets.client)), view.needed)
    return found


def _check_signatures(secrets: Secrets, view: CohortView, survivors: set[int], signatures: Mapping[int, bytes]) -> None:
    """Raises ProtocolError unless of each client that masks connect with this one, and of itself, `needed` holders have
    signed the list; and where anybody has signed another one."""
    signers = {secrets.client}
    for client, signature in signatures.items():
        if client not in survivors or not signed_list(view, client, signature, secrets.agreed):
            raise ProtocolError("wrong cohort", f"client {client} has signed another list of survivors, or is none")
        signers.add(client)
    for client in sorted(view.component(secrets.client, survivors)):
        found = len(signers.intersection(view.holders(client)))
        if found < view.needed:
            raise ProtocolError(
                "too few",
                f"{found} of those who hold client {client}'s shares have signed the list of survivors, {view.needed}"
                " are needed",
            )
