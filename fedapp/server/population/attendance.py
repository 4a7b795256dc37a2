"""Who is there, round after round: SuperNodes that vanish are not asked, and those that join are taken in."""

import time
from logging import INFO, WARNING

from flwr.app import Message

from fedapp.common.logger import log
from fedapp.flower.registered import bound_clients
from fedapp.flower.simulation import is_simulated
from fedapp.server.exchange import LONGEST_POLL, Exchange, Late
from fedapp.server.population.joining import AdmissionRules, check_admission
from fedapp.server.population.preflight import Population, query
from fedapp.server.population.roster import Roster
from fedapp.wire.preflight import unpack_preflight
from fedapp.wire.records import said_of, text

__all__ = ["Attendance"]


class Attendance:
    """Keeps `roster` up to date. `population` is what the preflight found by the same `rules`."""

    def __init__(self, exchange: Exchange, roster: Roster, population: Population, rules: AdmissionRules) -> None:
        self._exchange, self._roster, self._rules = exchange, roster, rules
        self._asked, self._partitions = set(population.supernodes), population.partitions
        self._said_bounded = set(roster.bounded)  # by `WeightedFedAvg.summary`
        self._open: dict[int, float] = {}  # SuperNodes that have not answered, and until when that is awaited

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
            found, helpers = len(self._roster.reachable()), len(self._roster.helpers)
            complete = found >= self._rules.min_clients and helpers >= self._rules.helpers
            if complete or time.monotonic() - start >= self._rules.wait_timeout:
                self._roster.busy = self._exchange.busy()
                return late
            if not waiting:
                log(
                    WARNING,
                    "%d clients are there, %d are needed: waiting for SuperNodes",
                    found,
                    self._rules.min_clients,
                )
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
            self._open |= dict.fromkeys(newcomers, now + self._rules.reply_timeout)
            self._exchange.post(query(node, self._rules.reply_timeout) for node in newcomers)

    def _late(self) -> list[Late]:
        found = []
        for late in self._exchange.late():
            if late.preflight is not None:
                self._admit(late.preflight)
            else:
                found.append(late)
        return found

    def _admit(self, reply: Message) -> None:
        node = reply.metadata.src_node_id
        try:
            if reply.has_error():
                raise ValueError(text(reply.error.reason))
            report = unpack_preflight(reply.content)
            check_admission(report, self._rules, self._partitions, bound_clients(self._exchange.grid).get(node))
            faults = self._roster.admit(node, report)
        except Exception as error:  # whatever a SuperNode sends must cost no more than its own part in the run
            faults = [f"SuperNode {node}: {said_of(error)}"]
        self._open.pop(node, None)
        if faults:
            self._asked.discard(node)  # it may have been mended by the next round, or its place been left
        for fault in faults:
            who, _, why = fault.partition(": ")
            if self._roster.faults.get(who) != why:
                log(WARNING, "%s takes no part: %s", who, why)
            self._roster.faults[who] = why
        said = self._roster.bounded
        for name in sorted(said.keys() - self._said_bounded):
            log(WARNING, "%s is bounded: %s", name, said[name])
        self._said_bounded |= said.keys()
        if not faults and self._rules.says_numbers:
            log(INFO, "SuperNode %d joined: %d clients are there", node, len(self._roster.reachable()))
