"""Whose fault it is that clients do not go on: who is named by several, and not who complains."""

from collections.abc import Collection

from fedapp.aggregation.reply_log import ReplyLog
from fedapp.aggregation.secaggplus.cohort_view import CohortView
from fedapp.wire.reply import ClientReport

__all__ = ["Accusations"]

SHARE = 3  # a third of the neighbours whom a client has sealed shares for
LEAST = 2  # accusers: one, who may be lying, is never enough, however few neighbours there are


class Accusations:
    """In one round: by client, which of its neighbours say that its keys or its shares cannot be used.

    A client may be lying, so one that is named is blamed only by a third of its neighbours, by more of them than
    may work together, and by two at least. Nor is it shown that who names others did anything wrong: it is in no sum,
    and no more.
    """

    def __init__(self) -> None:
        self._by: dict[int, set[int]] = {}  # by client that is named, those who name it

    def add(self, view: CohortView, client: int, accused: Collection[int]) -> bool:
        """Take what a client says. Whether it names any neighbour of its own, as whoever has reason to can."""
        named = set(accused).intersection(view.neighbours(client))
        for other in named:
            self._by.setdefault(other, set()).add(client)
        return bool(named)

    def settle(self, view: CohortView, replies: ReplyLog) -> None:
        """Put the fault where it belongs."""
        tolerated = max(0, view.settings.colluders(len(view.members)))
        for client in set().union(*self._by.values()):
            if client in replies.reports and (why := replies.reports[client].rejected) is not None:
                replies.reports[client], replies.unused[client] = ClientReport(client), why
        for client, by in sorted(self._by.items()):
            of = len(view.neighbours(client))
            if SHARE * len(by) >= of and len(by) > tolerated and len(by) >= LEAST:
                replies.unused.pop(client, None)
                replies.reject(client, f"{len(by)} of its {of} neighbours could not use its keys or shares")
