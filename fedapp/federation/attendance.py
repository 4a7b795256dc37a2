"""Who is there, round after round: SuperNodes that vanish are not asked, and those that join are taken in."""

import time
from logging import INFO, WARNING

from flwr.app import Message, MessageType
from flwr.common.logger import log

from fedapp.errors import FedappError
from fedapp.federation.exchange import LONGEST_POLL, Exchange
from fedapp.federation.preflight import check_same_code, query
from fedapp.federation.roster import Roster
from fedapp.wire.census import unpack_census
from fedapp.wire.records import text

__all__ = ["Attendance"]


class Attendance:
    """Keeps `roster` up to date. `asked`: SuperNodes that the preflight has asked already."""

    def __init__(
        self,
        exchange: Exchange,
        roster: Roster,
        *,
        asked: frozenset[int],
        min_clients: int,
        wait_timeout: float,
        reply_timeout: float,
    ) -> None:
        self._exchange, self._roster, self._asked = exchange, roster, set(asked)
        self._min_clients, self._wait_timeout, self._reply_timeout = min_clients, wait_timeout, reply_timeout

    def update(self) -> list[str]:
        """See who is there before a round, waiting for `min_clients` if need be. Returns late replies, described."""
        start, strays, waiting = time.monotonic(), list[str](), False
        while True:
            present = set(self._exchange.grid.get_node_ids())
            self._roster.present = present
            strays += self._late()
            self._ask(present)
            found = len(self._roster.reachable())
            if found >= self._min_clients or time.monotonic() - start >= self._wait_timeout:
                self._roster.busy = self._exchange.busy()
                return strays
            if not waiting:
                log(WARNING, "%d clients are there, %d are needed: waiting for SuperNodes", found, self._min_clients)
            waiting = True
            time.sleep(LONGEST_POLL)

    def _ask(self, present: set[int]) -> None:
        """Send the preflight's question to whoever has come, or come back; the answer is taken when it is there."""
        newcomers = sorted(present - self._asked)
        self._asked = present
        if newcomers:
            self._exchange.post(query(node, self._reply_timeout) for node in newcomers)

    def _late(self) -> list[str]:
        strays = []
        for reply in self._exchange.late():
            if reply.metadata.message_type == MessageType.QUERY:
                self._admit(reply)
            else:
                group = text(reply.metadata.group_id)
                strays.append(f"SuperNode {reply.metadata.src_node_id} replied too late: to round {group}")
        return strays

    def _admit(self, reply: Message) -> None:
        node = reply.metadata.src_node_id
        try:
            if reply.has_error():
                raise ValueError(text(reply.error.reason))
            census = unpack_census(reply.content)
            check_same_code({node: census})
            faults = self._roster.admit(node, census)
        except (FedappError, ValueError, KeyError, TypeError) as error:
            faults = [f"SuperNode {node}: {text(error) or type(error).__name__}"]
        for fault in faults:
            who, _, why = fault.partition(": ")
            self._roster.faults[who] = why
            log(WARNING, "%s takes no part: %s", who, why)
        log(INFO, "SuperNode %d joined: %d clients are there", node, len(self._roster.reachable()))
