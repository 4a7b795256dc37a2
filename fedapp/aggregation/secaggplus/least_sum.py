"""What a client asks of the sum that its update goes into: how many others it must be hidden among."""

import math
from collections.abc import Collection
from dataclasses import dataclass

from fedapp.aggregation.secaggplus.batches import missing
from fedapp.aggregation.secaggplus.cohort_view import CohortView, Member
from fedapp.aggregation.secaggplus.protocol_error import ProtocolError
from fedapp.common.errors import ConfigError

__all__ = ["ANY", "LeastSum"]

LEAST_WORTH = 1.2  # clients of equal weight that a sum must be worth: one of two may have some nine tenths


@dataclass(frozen=True)
class LeastSum:
    """`min_cohort`: the operator's. `signed`: the server may lie, as to a device: no secret can be rebuilt by half of
    its holders, and lists of survivors are signed."""

    min_cohort: int = 2
    signed: bool = False

    def check_cohort(self, view: CohortView, client: int) -> None:
        """Before a client shares its secrets. Raises ProtocolError."""
        if self.signed:
            try:
                view.settings.check_majority(len(view.members))
            except ConfigError as error:
                raise ProtocolError("wrong cohort", str(error)) from None
        self.check(view, client, view.by_client)

    def check(self, view: CohortView, client: int, among: Collection[int]) -> None:
        """Raises ProtocolError where the sum over so few clients, or over weights so uneven, would tell too much.

        Only those count whom masks connect with this client: the others can be unmasked without it. Half of
        `min_cohort` clients must count, and none have more than some nine tenths of the weight: with weights a server
        could leave all but one out of the sum. A batch must be in it completely, or not at all (`batches`).
        """
        found = view.component(client, among)
        if absent := missing(found, view.settings.batch):
            raise ProtocolError(
                "too few",
                f"the sum would hold a part of a batch, without clients {absent[:20]}; this client goes only into sums"
                f" over whole batches of {view.settings.batch}",
            )
        if len(found) < self.min_cohort:
            apart = f" (of {len(among)}, of whom the others could be unmasked apart)" if len(found) < len(among) else ""
            raise ProtocolError(
                "too few",
                f"{len(found)} clients in the sum{apart}, this client asks for {self.min_cohort} (min-cohort)",
            )
        worth = effective([view.by_client[other] for other in sorted(found)])
        if worth < (least := max(LEAST_WORTH, self.min_cohort / 2)):
            raise ProtocolError(
                "too few",
                f"by their weights {len(found)} clients count as {worth:.2f} of equal weight, this client asks for"
                f" {least:g} (half of min-cohort, at least {LEAST_WORTH})",
            )


ANY = LeastSum()  # of two clients


def effective(members: list[Member]) -> float:
    """Of how many clients of equal weight these are worth (Kish 1965): one that outweighs all others is alone."""
    squares = math.fsum(member.weight**2 for member in members)
    return math.fsum(member.weight for member in members) ** 2 / squares if squares else 0.0
