"""What a client asks of the sum that its update goes into: how many others it must be hidden among."""

from collections.abc import Collection
from dataclasses import dataclass

from fedapp.aggregation.secaggplus.batches import missing
from fedapp.aggregation.secaggplus.cohort_view import CohortView
from fedapp.aggregation.whole_numbers.effective_size import LEAST_WORTH, effective_size, least_size
from fedapp.aggregation.whole_numbers.protocol_error import ProtocolError
from fedapp.common.errors import ConfigError

__all__ = ["ANY", "LeastSum"]


@dataclass(frozen=True)
class LeastSum:
    """`min_cohort`: the operator's. `signed`: the server may lie, as to a device: no secret can be rebuilt by half of
    its holders, and lists of survivors are signed. `honest_share`: of the cohort, where the noise is the clients' own;
    else None."""

    min_cohort: int = 2
    signed: bool = False
    honest_share: float | None = None

    def check_cohort(self, view: CohortView, client: int) -> None:
        """Before a client shares its secrets. Raises ProtocolError."""
        try:
            if self.signed:
                view.settings.check_majority(len(view.members))
            if self.honest_share is not None:
                view.settings.check_honest(len(view.members), self.honest_share)
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
        worth = effective_size(view.by_client[other].weight for other in sorted(found))
        if worth < (least := least_size(self.min_cohort)):
            raise ProtocolError(
                "too few",
                f"by their weights {len(found)} clients count as {worth:.2f} of equal weight, this client asks for"
                f" {least:g} (half of min-cohort, at least {LEAST_WORTH})",
            )


ANY = LeastSum()  # of two clients
