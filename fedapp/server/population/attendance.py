"""Who is there, round after round: SuperNodes that vanish are not asked, and those that join are taken in."""

import time
from logging import INFO, WARNING

from flwr.app import Message
from flwr.common.logger import log

from fedapp.flower.simulation import is_simulated
from fedapp.server.exchange import LONGEST_POLL, Exchange, Late
from fedapp.server.population.preflight import check_backbone, check_claim, check_same_code, query
from fedapp.server.population.roster import Roster
from fedapp.wire.preflight import unpack_preflight
from fedapp.wire.records import text

__all__ = ["Attendance"]


class Attendance:
    """Keeps `roster` up to date. `asked`: SuperNodes that the preflight has asked already. `partitions`, `num_clients`
    and `backbone`: as in the preflight."""

    def __init__(
        self,
        exchange: Exchange,
        roster: Roster,
        *,
        asked: frozenset[int],
        partitions: int,
        num_clients: int,
        min_clients: int,
        wait_timeout: float,
        reply_timeout: float,
        backbone: str = "",
    ) -> None:
        self._exchange, self._roster, self._asked = exchange, roster, set(asked)
        self._partitions, self._num_clients, self._backbone = partitions, num_clients, backbone
        self._open: dict[int, float] = {}  # SuperNodes that have not answered, and until when that is awaited
        self._min_clients, self._wait_timeout, self._reply_timeout = min_clients, wait_timeout, reply_timeout

    @property
    def is_simulation(self) -> bool:
        """Whether the SuperNodes share this machine's cores with the server."""
        return is_simulated(self._exchange.grid)

    def update(self) -> list[Late]:
        """See who is there before a round, waiting for `min_clients` if need be. Returns replies to earlier rounds."""
        start, late, waiting = time.monotonic(), list[Late](), False
        while True:
            present = set(self._exchange.grid.get_node_ids())
            self._roster.present = present
            late += self._late()
            self._ask(present)
            found = len(self._roster.reachable())
            if found >= self._min_clients or time.monotonic() - start >= self._wait_timeout:
                self._roster.busy = self._exchange.busy()
                return late
            if not waiting:
                log(WARNING, "%d clients are there, %d are needed: waiting for SuperNodes", found, self._min_clients)
            waiting = True
            time.sleep(LONGEST_POLL)

    def _ask(self, present: set[int]) -> None:
        """Send the preflight's question to whoever has come, or come back; the answer is taken when it is there."""
        now = time.monotonic()
        unanswered = {node for node, end in self._open.items() if end < now}
        newcomers = sorted((present - self._asked) | (present & unanswered))
        self._asked = present
        self._open = {node: end for node, end in self._open.items() if node not in unanswered}
        if newcomers:
            self._open |= dict.fromkeys(newcomers, now + self._reply_timeout)
            self._exchange.post(query(node, self._reply_timeout) for node in newcomers)

    def _late(self) -> list[Late]:
        found = []
        for late in self._exchange.late():
            if late.census is not None:
                self._admit(late.census)
            else:
                found.append(late)
        return found

    def _admit(self, reply: Message) -> None:
        node = reply.metadata.src_node_id
        try:
            if reply.has_error():
                raise ValueError(text(reply.error.reason))
            census = unpack_preflight(reply.content)
            check_same_code({node: census})
            check_claim(census, self._partitions, self._num_clients)
            check_backbone(census, self._backbone)
            faults = self._roster.admit(node, census)
        except Exception as error:  # whatever a SuperNode sends must cost no more than its own part in the run
            faults = [f"SuperNode {node}: {text(error) or type(error).__name__}"]
        self._open.pop(node, None)
        if faults:
            self._asked.discard(node)  # it may have been mended by the next round, or its place been left
        for fault in faults:
            who, _, why = fault.partition(": ")
            if self._roster.faults.get(who) != why:
                log(WARNING, "%s takes no part: %s", who, why)
            self._roster.faults[who] = why
        if not faults:
            log(INFO, "SuperNode %d joined: %d clients are there", node, len(self._roster.reachable()))
